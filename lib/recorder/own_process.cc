#include "lib/recorder/own_process.h"

#include <sys/mman.h>

#include "lib/base/syscall.h"

namespace heapflare::recorder {
namespace {

constexpr size_t kPage = 4096;

std::atomic<uint32_t>* MakeWipedPage() {
  void* const page = base::Map(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (page == nullptr) return nullptr;
  if (base::Syscall(SYS_madvise, base::Arg(page), kPage, MADV_WIPEONFORK) != 0) {
    base::Unmap(page, kPage);
    return nullptr;
  }
  return static_cast<std::atomic<uint32_t>*>(page);
}

}  // namespace

constinit OwnProcessMark own_process_mark = {};

void MarkOwnProcess() {
  OwnProcessMark& mark = own_process_mark;
  mark.process = base::ProcessId();
  if (mark.alive == nullptr) mark.alive = MakeWipedPage();
  if (mark.alive != nullptr) mark.alive->store(1, std::memory_order_relaxed);
}

bool IsOwnProcessId() { return base::ProcessId() == OwnProcessId(); }

}  // namespace heapflare::recorder
