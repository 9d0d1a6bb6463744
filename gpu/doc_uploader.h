// Docs on their way from the file to the device: through a ring of two pinned buffers, so that the
// copy of one slice, the reading of the next and computing go on at once.
//
//   file --threads--> pinned[i] --copy stream--> staged[i] --compute stream: PrepareRows-->
//   DocChunk
//
// A pinned buffer is written again when its copy is done (the host waits for `copied`), a staged
// one when it was prepared (the copy stream waits for `prepared`).
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "core/cpu/thread_pool.h"
#include "core/io/row_source.h"
#include "core/search/search.h"
#include "gpu/cuda_raii.h"
#include "gpu/device_context.h"
#include "gpu/device_docs.h"

namespace tiny_knn {

// Thread-compatible.
class DocUploader {
 public:
  explicit DocUploader(const DeviceContext& context) : context_(context) {}

  // Room for slices of `slice_bytes`. ResourceExhausted.
  absl::Status Reserve(int64_t slice_bytes);

  // Reads docs [begin, end) of `docs` into pinned memory, and queues their copy to the device.
  // Threads of `pool` share the reading. At most two slices are under way: each Stage after the
  // first two follows a Prepare.
  absl::Status Stage(RowSource& docs, int64_t begin, int64_t end, ThreadPool& pool);

  // Queues on the compute stream: the slice that was staged first of those not yet prepared becomes
  // docs [chunk_doc, ...) of `chunk`. What was noticed is added to `tally`, in device memory.
  absl::Status Prepare(const SearchParams& params, DType doc_dtype, int64_t dim, DocChunk& chunk,
                       int64_t chunk_doc, PrepareTally* tally);

  // Device memory that is reserved now.
  int64_t device_bytes() const { return slots_[0].staged.count() + slots_[1].staged.count(); }

  // Forgets slices that are staged and not prepared, once nothing reads or writes the buffers any
  // more.
  void Reset();

 private:
  struct Slot {
    PinnedBuffer<std::byte> pinned;
    DeviceBuffer<std::byte> staged;
    CudaEvent copied;
    CudaEvent prepared;
    int64_t num_docs = 0;
  };

  const DeviceContext& context_;
  bool has_events_ = false;
  std::array<Slot, 2> slots_;
  int64_t num_staged_ = 0;  // since Reset
  int64_t num_prepared_ = 0;
};

}  // namespace tiny_knn
