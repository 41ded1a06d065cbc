#include "lib/recorder/free_filter.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "lib/base/syscall.h"

namespace heapflare::recorder {
namespace {

// Of the static ones, so that there are some before anything is prepared.
alignas(4096) constinit uint16_t least_slots[FreeFilter::kLeastSlots] = {};

// A sample takes 32 bytes of a box, of which they have half.
constexpr uint64_t kBoxBytesPerSlot = 8;

}  // namespace

constinit FreeFilter free_filter(least_slots);

void FreeFilter::Prepare(uint64_t box_bytes, void (*fill)(FreeFilter* filter)) {
  const uint64_t slots =
      std::clamp(std::bit_ceil(box_bytes / kBoxBytesPerSlot), kLeastSlots, kMostSlots);
  if (slots > kLeastSlots) {
    void* const memory = base::Map(nullptr, slots * sizeof(uint16_t), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (memory != nullptr) {
      // Filled for either mask: whoever frees meanwhile may see the new slots and the old mask.
      FreeFilter next(static_cast<uint16_t*>(memory));
      fill(&next);
      next.mask_ = slots - 1;
      fill(&next);
      __atomic_store_n(&slots_, next.slots_, __ATOMIC_RELEASE);
      __atomic_store_n(&mask_, next.mask_, __ATOMIC_RELEASE);
    }
  }
  // Or the kernel may give it huge pages, of which a few bytes are used.
  base::Syscall(SYS_madvise, base::Arg(slots_), static_cast<long>((mask_ + 1) * sizeof(*slots_)),
                MADV_NOHUGEPAGE);
}

void FreeFilter::Clear() {
  // Private anonymous pages read as zero afterwards.
  base::Syscall(SYS_madvise, base::Arg(slots_), static_cast<long>((mask_ + 1) * sizeof(*slots_)),
                MADV_DONTNEED);
}

}  // namespace heapflare::recorder
