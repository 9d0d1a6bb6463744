// Stands in for a test that needs the CUDA toolkit, in a build without: it says that it is skipped,
// and why.
#include "gtest/gtest.h"

TEST(CudaToolkit, NeededByThisTest) { GTEST_SKIP() << NO_TOOLKIT_REASON; }
