#include <unistd.h>

#include <cstdio>

#include "cli/cli_main.h"

int main(int argc, char** argv) {
  const int code = tiny_knn::CliMain(argc, argv);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // Dozens of shared libraries would tidy up behind a command that has said all it had to say,
  // which takes longer than some commands do. What they may have printed (DNNL_VERBOSE) is flushed.
  // The sanitizers have their reports to make.
  std::fflush(nullptr);
  _exit(code);
#else
  return code;
#endif
}
