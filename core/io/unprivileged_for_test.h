// Lets a test that runs as root see what a user without privileges sees.
#pragma once

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace tiny_knn {

// While it lives, the calling thread respects file permissions even as root: the two capabilities
// that bypass them are not in effect. Not thread-safe in itself; affects its own thread only.
class ScopedUnprivileged {
 public:
  ScopedUnprivileged() {
    EXPECT_EQ(syscall(SYS_capget, &header_, saved_), 0);
    __user_cap_data_struct without[2] = {saved_[0], saved_[1]};
    without[0].effective &= ~(1U << CAP_DAC_OVERRIDE | 1U << CAP_DAC_READ_SEARCH);
    EXPECT_EQ(syscall(SYS_capset, &header_, without), 0);
  }
  ~ScopedUnprivileged() { EXPECT_EQ(syscall(SYS_capset, &header_, saved_), 0); }
  ScopedUnprivileged(const ScopedUnprivileged&) = delete;
  ScopedUnprivileged& operator=(const ScopedUnprivileged&) = delete;

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct saved_[2] = {};
};

}  // namespace tiny_knn
