// The whole command line as a function, so that tests can link it.
#pragma once

namespace tiny_knn {

// Runs `tiny-knn` with these arguments (argv[0] is the program) and returns its exit code:
//   0 done, 1 failed while running, 2 wrong use or bad input, 128 + N ended by signal N (130 is
//   Ctrl-C). Data goes to standard output, everything else to standard error.
// Call once per process: it installs signal handlers.
int CliMain(int argc, char** argv);

}  // namespace tiny_knn
