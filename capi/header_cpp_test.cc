// The header is C++ too, of the oldest kind.
#include "capi/tiny_knn.h"

int main() {
  tknn_control* control = 0;  // NOLINT(modernize-use-nullptr): C++98
  if (tknn_control_create(&control) != TKNN_OK) return 1;
  int64_t done = -1, total = -1;
  tknn_control_progress(control, &done, &total);
  tknn_control_destroy(control);
  return done == 0 && total == 0 && tknn_abi_version() == TKNN_ABI_VERSION ? 0 : 1;
}
