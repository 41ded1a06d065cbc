// Compresses what passes through, in gzip format, within memory of fixed size.
#pragma once

#include <zlib.h>

#include <cstddef>

#include "lib/pprof/sink.h"

namespace heapflare::pprof {

// Holds all the memory that deflate needs (it never allocates), about 150 KiB: too large for a
// small stack, so make it static or put it on the heap. One user at a time. Begin, Write ...,
// Finish; reusable.
class Gzip final : public Sink {
 public:
  // False only if the memory below is too small for the zlib that is linked.
  bool Begin(Sink* out);
  bool Write(const void* data, size_t bytes) override;
  // Writes the rest and the trailer.
  bool Finish();

  // Touches every page, so that a later use allocates no memory.
  void Touch();

 private:
  // A window of 8 KiB and level 1: profiles compress to within 10 % of the default, in a third of
  // the time and a quarter of the memory.
  static constexpr int kLevel = 1;
  static constexpr int kWindowBits = 13;
  static constexpr int kMemoryLevel = 6;
  static constexpr size_t kArenaBytes = 112 << 10;
  static constexpr size_t kOutputBytes = 32 << 10;

  static void* Allocate(void* self, unsigned count, unsigned size);
  static void Release(void* self, void* memory);
  bool Deflate(int flush);

  Sink* out_ = nullptr;
  z_stream stream_ = {};
  size_t arena_used_ = 0;
  alignas(16) unsigned char arena_[kArenaBytes] = {};
  unsigned char output_[kOutputBytes] = {};
};

}  // namespace heapflare::pprof
