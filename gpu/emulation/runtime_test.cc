// The runtime: streams and events are lazy and in any order, copies and pinned buffers are watched,
// allocations fail on demand, errors are CUDA's.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/emulation/checks_test_kernels.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/test_device_array.h"
#include "gpu/emulation/violation.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

using testing::Each;
using testing::HasSubstr;

constexpr int kN = 256;
constexpr size_t kBytes = kN * sizeof(uint32_t);
constexpr uint32_t kPoisonWord = 0xCDCDCDCD;

cudaStream_t NewStream() {
  cudaStream_t stream = nullptr;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  return stream;
}

cudaEvent_t NewEvent() {
  cudaEvent_t event = nullptr;
  EXPECT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  return event;
}

// Pinned memory of kN words.
uint32_t* NewPinned() {
  void* memory = nullptr;
  EXPECT_EQ(cudaMallocHost(&memory, kBytes), cudaSuccess);
  return static_cast<uint32_t*>(memory);
}

std::string Kinds(ViolationCollector& collector) {
  std::string kinds;
  for (const Violation& violation : collector.Take())
    kinds += std::string(ViolationName(violation.kind));
  return kinds;
}

class RuntimeTest : public testing::TestWithParam<uint64_t> {
 protected:
  EmulatedGpu gpu_{{.seed = GetParam(), .memory_bytes = 1 << 20}};
};

// 0 does nothing early, the others do.
INSTANTIATE_TEST_SUITE_P(Seeds, RuntimeTest, testing::Range(uint64_t{0}, uint64_t{12}));

// Upload, kernel and download, each on a stream of its own, ordered by events.
void Pipeline(bool waits_for_upload, bool waits_for_kernel) {
  cudaStream_t up = NewStream(), compute = NewStream(), down = NewStream();
  cudaEvent_t uploaded = NewEvent(), computed = NewEvent();
  uint32_t* in = NewPinned();
  uint32_t* out = NewPinned();
  for (uint32_t i = 0; i < kN; ++i) in[i] = i;
  const DeviceArray<uint32_t> a(kN), b(kN);
  // What a missing wait would read instead.
  EXPECT_EQ(cudaMemset(a.data(), 0, kBytes), cudaSuccess);
  EXPECT_EQ(cudaMemset(b.data(), 0, kBytes), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cudaMemcpyAsync(a.data(), in, kBytes, cudaMemcpyHostToDevice, up);
  cudaEventRecord(uploaded, up);
  if (waits_for_upload) cudaStreamWaitEvent(compute, uploaded, 0);
  AddOne(a.data(), b.data(), kN, compute);
  cudaEventRecord(computed, compute);
  if (waits_for_kernel) cudaStreamWaitEvent(down, computed, 0);
  cudaMemcpyAsync(out, b.data(), kBytes, cudaMemcpyDeviceToHost, down);
  const cudaError_t error = cudaStreamSynchronize(down);
  if (waits_for_upload && waits_for_kernel) {
    EXPECT_EQ(error, cudaSuccess);
    for (uint32_t i = 0; i < kN; ++i) EXPECT_EQ(out[i], i + 1);
  }
  cudaDeviceSynchronize();
  for (cudaStream_t stream : {up, compute, down}) cudaStreamDestroy(stream);
  for (cudaEvent_t event : {uploaded, computed}) cudaEventDestroy(event);
  cudaFreeHost(in);
  cudaFreeHost(out);
}

TEST_P(RuntimeTest, EventsOrderStreams) {
  ViolationCollector collector;
  Pipeline(true, true);
  EXPECT_EQ(Kinds(collector), "");
  EXPECT_EQ(gpu_.live_allocations(), 0U);
  EXPECT_EQ(gpu_.live_host_allocations(), 0U);
  EXPECT_EQ(gpu_.live_streams(), 0U);
  EXPECT_EQ(gpu_.live_events(), 0U);
}

TEST_P(RuntimeTest, AMissingWaitIsARaceInEveryOrder) {
  ViolationCollector collector;
  Pipeline(false, true);
  EXPECT_EQ(Kinds(collector), "race between streams");
}

TEST_P(RuntimeTest, AMissingWaitBeforeTheDownloadIsARaceInEveryOrder) {
  ViolationCollector collector;
  Pipeline(true, false);
  EXPECT_EQ(Kinds(collector), "race between streams");
}

TEST_P(RuntimeTest, TheDefaultStreamWaitsForBlockingStreamsAndTheyForIt) {
  ViolationCollector collector;
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  const DeviceArray<uint32_t> a(kN), b(kN);
  cudaMemsetAsync(a.data(), 0, kBytes, blocking);
  AddOne(a.data(), b.data(), kN, nullptr);
  AddOne(b.data(), a.data(), kN, blocking);
  EXPECT_THAT(a.Read(), Each(2U));
  cudaStreamDestroy(blocking);
  EXPECT_EQ(Kinds(collector), "");
}

TEST_P(RuntimeTest, ANonBlockingStreamDoesNotWaitForTheDefaultStream) {
  ViolationCollector collector;
  cudaStream_t stream = NewStream();
  const DeviceArray<uint32_t> a(kN), b(kN);
  cudaMemset(a.data(), 0, kBytes);
  AddOne(a.data(), b.data(), kN, stream);
  cudaDeviceSynchronize();
  EXPECT_THAT(Kinds(collector), testing::AnyOf("race between streams", "uninitialised read"));
  cudaStreamDestroy(stream);
}

TEST_P(RuntimeTest, APinnedSourceIsTakenWhenTheCopyIsDone) {
  ViolationCollector collector;
  cudaStream_t stream = NewStream();
  uint32_t* in = NewPinned();
  const DeviceArray<uint32_t> a(kN);
  std::memset(in, 1, kBytes);
  cudaMemcpyAsync(a.data(), in, kBytes, cudaMemcpyHostToDevice, stream);
  cudaStreamSynchronize(stream);
  std::memset(in, 2, kBytes);
  cudaMemcpyAsync(a.data(), in, kBytes, cudaMemcpyHostToDevice, stream);
  cudaStreamSynchronize(stream);
  EXPECT_THAT(a.Read(), Each(0x02020202U));
  cudaFreeHost(in);
  cudaStreamDestroy(stream);
  EXPECT_EQ(Kinds(collector), "");
}

TEST_P(RuntimeTest, PinnedMemoryThatACopyUsesIsNotFreed) {
  ViolationCollector collector;
  cudaStream_t stream = NewStream();
  uint32_t* in = NewPinned();
  const DeviceArray<uint32_t> a(kN);
  std::memset(in, 1, kBytes);
  cudaMemcpyAsync(a.data(), in, kBytes, cudaMemcpyHostToDevice, stream);
  cudaFreeHost(in);
  EXPECT_EQ(Kinds(collector), "host buffer reused");
  cudaStreamDestroy(stream);
}

TEST_P(RuntimeTest, APageableSourceIsTakenAtOnce) {
  cudaStream_t stream = NewStream();
  std::vector<uint32_t> in(kN, 7);
  const DeviceArray<uint32_t> a(kN);
  cudaMemcpyAsync(a.data(), in.data(), kBytes, cudaMemcpyHostToDevice, stream);
  in.assign(kN, 8);
  cudaStreamSynchronize(stream);
  EXPECT_THAT(a.Read(), Each(7U));
  // And a pageable destination is there when the call returns.
  cudaMemcpyAsync(in.data(), a.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  EXPECT_THAT(in, Each(7U));
  cudaStreamDestroy(stream);
}

TEST_P(RuntimeTest, PollsSayNotReadyAndThenSuccess) {
  cudaStream_t stream = NewStream();
  cudaEvent_t event = NewEvent();
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  const DeviceArray<uint32_t> a(kN);
  cudaMemsetAsync(a.data(), 0, kBytes, stream);
  cudaEventRecord(event, stream);
  int polls = 1;
  for (cudaError_t error = cudaEventQuery(event); error != cudaSuccess;
       error = cudaEventQuery(event)) {
    ASSERT_EQ(error, cudaErrorNotReady);
    ASSERT_LT(++polls, 10);
  }
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
  EXPECT_THAT(a.Read(), Each(0U));
  cudaEventDestroy(event);
  cudaStreamDestroy(stream);
}

TEST_P(RuntimeTest, MemoryThatPendingWorkUsesIsNotFreed) {
  ViolationCollector collector;
  cudaStream_t stream = NewStream();
  {
    const DeviceArray<uint32_t> a(std::vector<uint32_t>(kN, 1)), b(kN);
    AddOne(a.data(), b.data(), kN, stream);
  }
  cudaStreamSynchronize(stream);
  // A seed that does work early may be done already.
  const std::string kinds = Kinds(collector);
  if (GetParam() == 0) {
    EXPECT_EQ(kinds, "out of bounds");
  } else {
    EXPECT_THAT(kinds, testing::AnyOf("", "out of bounds"));
  }
  cudaStreamDestroy(stream);
}

// ---- without a seed: nothing is done before somebody waits for it.

TEST(LazyRuntime, APinnedSourceThatIsReusedTooEarlyIsReported) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  cudaStream_t stream = NewStream();
  uint32_t* in = NewPinned();
  const DeviceArray<uint32_t> a(kN);
  std::memset(in, 1, kBytes);
  cudaMemcpyAsync(a.data(), in, kBytes, cudaMemcpyHostToDevice, stream);
  in[kN - 1] = 5;
  EXPECT_NE(cudaStreamSynchronize(stream), cudaSuccess);
  const std::vector<Violation> violations = collector.Take();
  ASSERT_EQ(violations.size(), 1U);
  EXPECT_EQ(violations[0].kind, ViolationKind::kPinnedReuse);
  EXPECT_THAT(violations[0].message, HasSubstr("its pinned source was changed"));
}

TEST(LazyRuntime, APinnedDestinationIsPoisonUntilTheHostHasWaited) {
  EmulatedGpu gpu({});
  cudaStream_t stream = NewStream();
  uint32_t* out = NewPinned();
  const DeviceArray<uint32_t> a(std::vector<uint32_t>(kN, 9));
  std::memset(out, 0, kBytes);
  cudaMemcpyAsync(out, a.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  EXPECT_THAT(std::vector<uint32_t>(out, out + kN), Each(kPoisonWord));
  cudaStreamSynchronize(stream);
  EXPECT_THAT(std::vector<uint32_t>(out, out + kN), Each(9U));
  cudaFreeHost(out);
  cudaStreamDestroy(stream);
}

TEST(LazyRuntime, AHostWriteToAPendingDestinationIsReported) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  cudaStream_t stream = NewStream();
  uint32_t* out = NewPinned();
  const DeviceArray<uint32_t> a(std::vector<uint32_t>(kN, 9));
  cudaMemcpyAsync(out, a.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  out[3] = 4;
  cudaStreamSynchronize(stream);
  EXPECT_EQ(Kinds(collector), "host buffer reused");
}

// A buffer may serve two copies that a stream orders.
TEST(LazyRuntime, APinnedBufferGoesDownAndUpAgainInOneStream) {
  EmulatedGpu gpu({});
  cudaStream_t stream = NewStream();
  uint32_t* buffer = NewPinned();
  const DeviceArray<uint32_t> a(std::vector<uint32_t>(kN, 9)), b(kN);
  cudaMemcpyAsync(buffer, a.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  cudaMemcpyAsync(b.data(), buffer, kBytes, cudaMemcpyHostToDevice, stream);
  cudaMemsetAsync(a.data(), 0, kBytes, stream);
  cudaMemcpyAsync(buffer, a.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  EXPECT_THAT(std::vector<uint32_t>(buffer, buffer + kN), Each(0U));
  EXPECT_THAT(b.Read(), Each(9U));
  cudaFreeHost(buffer);
  cudaStreamDestroy(stream);
}

TEST(Runtime, UninitialisedMemoryIsNotCopiedToTheHost) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  const DeviceArray<uint32_t> a(kN);
  cudaMemset(a.data(), 0, kBytes - 4);
  std::vector<uint32_t> out(kN);
  EXPECT_NE(cudaMemcpy(out.data(), a.data(), kBytes, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(Kinds(collector), "uninitialised read");
}

// On the device it may be copied; it stays what it is.
TEST(Runtime, UninitialisedBytesStaySoWhenTheyAreCopied) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  const DeviceArray<uint32_t> a(kN), b(kN);
  cudaMemset(a.data(), 5, kBytes / 2);
  cudaMemset(b.data(), 0, kBytes);
  EXPECT_EQ(cudaMemcpy(b.data(), a.data(), kBytes, cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_THAT(b.Read(kN / 2), Each(0x05050505U));
  EXPECT_EQ(Kinds(collector), "");
  std::vector<uint32_t> out(kN);
  cudaMemcpy(out.data(), b.data(), kBytes, cudaMemcpyDeviceToHost);
  EXPECT_EQ(Kinds(collector), "uninitialised read");
}

TEST(Runtime, CopiesStayWithinTheirAllocations) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  const DeviceArray<uint32_t> a(kN);
  std::vector<uint32_t> in(kN + 1);
  EXPECT_EQ(cudaMemcpy(a.data(), in.data(), kBytes + 4, cudaMemcpyHostToDevice),
            cudaErrorIllegalAddress);
  const std::vector<Violation> violations = collector.Take();
  ASSERT_EQ(violations.size(), 1U);
  EXPECT_THAT(violations[0].message, HasSubstr("copy of 1028 bytes to the device on stream 0"));
}

TEST(Runtime, TheKindOfACopyHasToFitItsPointers) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  const DeviceArray<uint32_t> a(kN);
  std::vector<uint32_t> in(kN);
  EXPECT_EQ(cudaMemcpy(a.data(), in.data(), kBytes, cudaMemcpyDeviceToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(Kinds(collector), "wrong memory space");
}

TEST(Runtime, RowsAreCopiedWithTheirPitches) {
  EmulatedGpu gpu({});
  std::vector<uint32_t> in(4 * 10), out(4 * 3, 0);
  for (uint32_t i = 0; i < in.size(); ++i) in[i] = i;
  const DeviceArray<uint32_t> a(4 * 8), b(4 * 8);
  ASSERT_EQ(cudaMemcpy2DAsync(a.data(), 32, in.data(), 40, 12, 4, cudaMemcpyHostToDevice, nullptr),
            cudaSuccess);
  ASSERT_EQ(cudaMemcpy2DAsync(b.data(), 32, a.data(), 32, 12, 4, cudaMemcpyDeviceToDevice, nullptr),
            cudaSuccess);
  ASSERT_EQ(cudaMemcpy2DAsync(out.data(), 12, b.data(), 32, 12, 4, cudaMemcpyDeviceToHost, nullptr),
            cudaSuccess);
  EXPECT_THAT(out, testing::ElementsAre(0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32));
  EXPECT_EQ(cudaMemcpy2DAsync(a.data(), 8, in.data(), 40, 12, 4, cudaMemcpyHostToDevice, nullptr),
            cudaErrorInvalidPitchValue);
}

TEST(Runtime, MemoryIsAsSmallAsTheTestWants) {
  EmulatedGpu gpu({.memory_bytes = 10'000});
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, 10'000U);
  EXPECT_EQ(total, 10'000U);
  void* memory = nullptr;
  void* more = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 6'000), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&more, 4'001), cudaErrorMemoryAllocation);
  EXPECT_EQ(more, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&more, 4'000), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, 0U);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  EXPECT_EQ(cudaFree(more), cudaSuccess);
  EXPECT_EQ(cudaFree(more), cudaErrorInvalidValue);
  EXPECT_EQ(gpu.counts().peak_bytes, 10'000U);
}

TEST(Runtime, AllocationsAndLaunchesFailOnDemand) {
  EmulatedGpu gpu({.failing_allocation = 1, .failing_host_allocation = 0, .failing_launch = 1});
  void* memory = nullptr;
  void* pinned = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 1024), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&memory, 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMallocHost(&pinned, 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(pinned, nullptr);
  cudaGetLastError();
  EmulatedGpuCounts counts = gpu.counts();
  EXPECT_EQ(counts.allocations, 2U);
  EXPECT_EQ(counts.host_allocations, 1U);
}

TEST(Runtime, LaunchesThatNoGpuTakesAreRefused) {
  EmulatedGpu gpu({.failing_launch = 1});
  const DeviceArray<uint32_t> a(std::vector<uint32_t>(kN, 1)), b(kN);
  EXPECT_EQ(AddOne(a.data(), b.data(), 0, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(AddOne(a.data(), b.data(), kN, nullptr), cudaSuccess);
  EXPECT_THAT(b.Read(), Each(2U));
  EXPECT_EQ(AddOne(a.data(), b.data(), kN, nullptr), cudaErrorLaunchOutOfResources);
  EXPECT_EQ(gpu.counts().blocks, 4U);
}

TEST(Runtime, AMachineMayHaveNoDevice) {
  EmulatedGpu gpu({.devices = 0});
  int devices = 5;
  EXPECT_EQ(cudaGetDeviceCount(&devices), cudaErrorNoDevice);
  EXPECT_EQ(devices, 0);
  EXPECT_EQ(cudaSetDevice(0), cudaErrorNoDevice);
  EXPECT_STREQ(cudaGetErrorString(cudaErrorNoDevice), "no CUDA-capable device is detected");
  EXPECT_STREQ(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice");
  cudaGetLastError();
}

TEST(Runtime, PropertiesAreOfTheArchitectureThatTheKernelsHave) {
  EmulatedGpu gpu({.memory_bytes = 5 << 20, .multiprocessors = 7, .l2_bytes = 1 << 20});
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_EQ(properties.totalGlobalMem, 5U << 20);
  EXPECT_EQ(properties.multiProcessorCount, 7);
  EXPECT_EQ(properties.l2CacheSize, 1 << 20);
  const int arch = properties.major * 10 + properties.minor;
  EXPECT_TRUE(arch == 75 || arch == 90) << arch;
  int shared = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0),
            cudaSuccess);
  EXPECT_EQ(shared, (arch == 75 ? 64 : 227) * 1024);
  EXPECT_EQ(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlock, 1),
            cudaErrorInvalidDevice);
  cudaGetLastError();
}

}  // namespace
}  // namespace tiny_knn::emulation
