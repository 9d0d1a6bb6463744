// A kernel that shows that cuda_library compiles, links and runs.
#pragma once

#include "cuda_runtime_api.h"

namespace tiny_knn {

// y[i] += a * x[i] for i in [0, n), on `stream`. x, y: device memory, [n].
cudaError_t AddScaled(float a, const float* x, float* y, int n, cudaStream_t stream);

}  // namespace tiny_knn
