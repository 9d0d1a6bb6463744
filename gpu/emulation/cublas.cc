// The functions of cuBLAS that the engine calls. cublasGemmEx rounds as badly as it may: gemm.h.
#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "core/matrix/convert.h"
#include "cublas_v2.h"
#include "fmt/format.h"
#include "gpu/emulation/device.h"
#include "gpu/emulation/gemm.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
};

namespace tiny_knn::emulation {
namespace {

// A matrix in device memory, by columns.
struct Matrix {
  uint64_t address = 0;
  cudaDataType type = CUDA_R_32F;
  int rows = 0;
  int columns = 0;
  int stride = 0;  // elements from one column to the next
};

struct Gemm {
  Matrix a, b, c;  // a and b as they lie in memory
  bool transposes_a = false, transposes_b = false;
  int m = 0, n = 0, k = 0;
  double alpha = 1, beta = 0;
  bool is_integer = false;
  bool cuts_to_tf32 = false;
  GemmRounding rounding = GemmRounding::kFloat32;
  uint64_t seed = 0;
};

uint64_t BytesOf(cudaDataType type) {
  switch (type) {
    case CUDA_R_8I:
      return 1;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    default:
      return 4;
  }
}

float ToFloat(const std::byte* bytes, cudaDataType type) {
  uint16_t half = 0;
  switch (type) {
    case CUDA_R_8I:
      return static_cast<float>(std::to_integer<int8_t>(*bytes));
    case CUDA_R_16F:
      std::memcpy(&half, bytes, sizeof(half));
      return Float16ToFloat32(half);
    case CUDA_R_16BF:
      std::memcpy(&half, bytes, sizeof(half));
      return BFloat16ToFloat32(half);
    default: {
      float value = 0;
      std::memcpy(&value, bytes, sizeof(value));
      return value;
    }
  }
}

// The values of op(matrix), its k terms adjoining: [outer, k], where outer are the rows of op(A) or
// the columns of op(B). `terms_adjoin`: whether they do in memory.
std::vector<float> Load(Device& device, const Actor& actor, const Matrix& matrix, bool terms_adjoin,
                        bool cuts) {
  const auto rows = static_cast<size_t>(matrix.rows);
  const auto columns = static_cast<size_t>(matrix.columns);
  const uint64_t bytes = BytesOf(matrix.type);
  std::vector<float> values(rows * columns);
  for (size_t column = 0; column < columns; ++column) {
    const std::byte* source = device.memory.Read(
        actor, matrix.address + column * static_cast<uint64_t>(matrix.stride) * bytes, rows * bytes,
        bytes, Strength::kWeak);
    for (size_t row = 0; row < rows; ++row) {
      const float value = ToFloat(source + row * bytes, matrix.type);
      values[terms_adjoin ? column * rows + row : row * columns + column] =
          cuts ? CutToTf32(value) : value;
    }
  }
  return values;
}

// In 32 bits, wrapping around.
uint32_t IntegerDot(std::span<const float> a, std::span<const float> b) {
  uint32_t sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<uint32_t>(static_cast<int32_t>(a[i]) * static_cast<int32_t>(b[i]));
  }
  return sum;
}

void Run(Device& device, const Gemm& gemm, const Actor& actor) {
  const auto m = static_cast<size_t>(gemm.m);
  const auto n = static_cast<size_t>(gemm.n);
  const auto k = static_cast<size_t>(gemm.k);
  const std::vector<float> a = Load(device, actor, gemm.a, gemm.transposes_a, gemm.cuts_to_tf32);
  const std::vector<float> b = Load(device, actor, gemm.b, !gemm.transposes_b, gemm.cuts_to_tf32);
  const GemmModel model = MakeGemmModel(gemm.rounding, k, gemm.seed);
  for (size_t column = 0; column < n; ++column) {
    const uint64_t address = gemm.c.address + column * static_cast<uint64_t>(gemm.c.stride) * 4;
    // With beta = 0 what C holds is not read.
    std::vector<std::byte> before(m * 4);
    if (gemm.beta != 0) {
      std::memcpy(before.data(), device.memory.Read(actor, address, m * 4, 4, Strength::kWeak),
                  m * 4);
    }
    std::byte* out = device.memory.Write(actor, address, m * 4, 4, Strength::kWeak);
    for (size_t row = 0; row < m; ++row) {
      const std::span<const float> terms_a(&a[row * k], k), terms_b(&b[column * k], k);
      if (gemm.is_integer) {
        uint32_t old = 0;
        std::memcpy(&old, &before[row * 4], 4);
        const uint32_t sum = static_cast<uint32_t>(gemm.alpha) * IntegerDot(terms_a, terms_b) +
                             static_cast<uint32_t>(gemm.beta) * old;
        std::memcpy(out + row * 4, &sum, 4);
      } else {
        float old = 0;
        std::memcpy(&old, &before[row * 4], 4);
        float sum = RoundedDot(model, terms_a, terms_b);
        if (gemm.alpha != 1) sum *= static_cast<float>(gemm.alpha);
        if (gemm.beta != 0) sum += static_cast<float>(gemm.beta) * old;
        std::memcpy(out + row * 4, &sum, 4);
      }
    }
  }
}

// Which of the combinations of types this is; false if none that is known here.
bool FindRounding(const cublasContext& context, cublasComputeType_t compute, Gemm* gemm) {
  const cudaDataType type = gemm->a.type;
  if (gemm->b.type != type) return false;
  if (type == CUDA_R_8I) {
    gemm->is_integer = true;
    return gemm->c.type == CUDA_R_32I &&
           (compute == CUBLAS_COMPUTE_32I || compute == CUBLAS_COMPUTE_32I_PEDANTIC);
  }
  if (gemm->c.type != CUDA_R_32F) return false;
  const bool is_half = type == CUDA_R_16F || type == CUDA_R_16BF;
  if (!is_half && type != CUDA_R_32F) return false;
  switch (compute) {
    case CUBLAS_COMPUTE_32F:
      gemm->cuts_to_tf32 = !is_half && context.math_mode == CUBLAS_TF32_TENSOR_OP_MATH;
      break;
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      gemm->cuts_to_tf32 = !is_half;
      break;
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      gemm->rounding = GemmRounding::kFloat32;
      return true;
    default:
      return false;
  }
  gemm->rounding =
      is_half || gemm->cuts_to_tf32 ? GemmRounding::kTensorCore : GemmRounding::kFloat32;
  return true;
}

// What cuBLAS asks of int8 products. Its manual asks cublasGemmEx for pointers aligned to 4 bytes,
// lda and ldb that are multiples of 4, and factors of 0 or 1. The kernels on tensor cores besides
// for multiples of 4 of m, k and ldc, and for A transposed and B not; elsewhere they are a matter
// of speed, but on compute capability 12.0 programs were refused what no other kernel is left for.
bool IsIntegerProduct(const Gemm& gemm) {
  const auto is_factor = [](double factor) { return factor == 0 || factor == 1; };
  const auto is_aligned = [](const Matrix& matrix) {
    return matrix.address % 4 == 0 && matrix.stride % 4 == 0;
  };
  return is_aligned(gemm.a) && is_aligned(gemm.b) && is_aligned(gemm.c) && gemm.m % 4 == 0 &&
         gemm.k % 4 == 0 && gemm.transposes_a && !gemm.transposes_b && is_factor(gemm.alpha) &&
         is_factor(gemm.beta);
}

}  // namespace
}  // namespace tiny_knn::emulation

extern "C" {

using namespace tiny_knn::emulation;  // NOLINT(google-build-using-namespace)

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  Locked locked;
  if (locked.device.sticky != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (locked.device.options.devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* /*workspace*/, size_t /*bytes*/) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->math_mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *mode = handle->math_mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t /*handle*/, int* version) {
  *version = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "the operation completed successfully";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an invalid value was used as an argument";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "the GPU program failed to execute";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the functionality is not supported";
    default:
      return "unknown cuBLAS status";
  }
}

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "unknown cuBLAS status";
  }
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void* alpha,
                            const void* a, cudaDataType Atype, int lda, const void* b,
                            cudaDataType Btype, int ldb, const void* beta, void* c,
                            cudaDataType Ctype, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t /*algorithm*/) {
  Locked locked;
  Device& device = locked.device;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (device.sticky != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  uint32_t stream = 0;
  if (!device.FindStream(handle->stream, &stream)) return CUBLAS_STATUS_EXECUTION_FAILED;
  Gemm gemm;
  gemm.transposes_a = transa != CUBLAS_OP_N;
  gemm.transposes_b = transb != CUBLAS_OP_N;
  gemm.m = m;
  gemm.n = n;
  gemm.k = k;
  gemm.a = {reinterpret_cast<uint64_t>(a), Atype, gemm.transposes_a ? k : m,
            gemm.transposes_a ? m : k, lda};
  gemm.b = {reinterpret_cast<uint64_t>(b), Btype, gemm.transposes_b ? n : k,
            gemm.transposes_b ? k : n, ldb};
  gemm.c = {reinterpret_cast<uint64_t>(c), Ctype, m, n, ldc};
  if (m < 0 || n < 0 || k < 0 || alpha == nullptr || beta == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  for (const Matrix& matrix : {gemm.a, gemm.b, gemm.c}) {
    if (matrix.stride < std::max(matrix.rows, 1)) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (!FindRounding(*handle, compute, &gemm)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (gemm.is_integer) {
    gemm.alpha = *static_cast<const int32_t*>(alpha);
    gemm.beta = *static_cast<const int32_t*>(beta);
    if (!IsIntegerProduct(gemm)) return CUBLAS_STATUS_NOT_SUPPORTED;
  } else {
    gemm.alpha = *static_cast<const float*>(alpha);
    gemm.beta = *static_cast<const float*>(beta);
  }
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  if (device.counts.gemms++ >= device.options.failing_gemm) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (device.options.seed != 0) gemm.seed = device.streams->NextRandom();
  device.Enqueue(stream, fmt::format("cublasGemmEx of {} x {} x {}", m, n, k),
                 [&device, gemm](const Actor& actor) { Run(device, gemm, actor); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
