// The C API, see include/heapflare/heapflare.h.
#define HEAPFLARE_IMPLEMENTATION
#include <errno.h>

#include <cstring>

#include "heapflare/heapflare.h"
#include "lib/base/syscall.h"
#include "lib/recorder/leak_check.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/recording.h"
#include "lib/recorder/requests.h"
#include "lib/recorder/thread.h"

// C functions stand in no namespace.
using namespace heapflare::recorder;

int heapflare_active(void) {
  const Phase phase = recorder.phase.load(std::memory_order_acquire);
  return (phase == Phase::kWaiting || phase == Phase::kOpening || phase == Phase::kRecording) &&
         recorder.interval.load(std::memory_order_relaxed) != 0;
}

int heapflare_dump(const char* path) {
  constexpr int64_t kTimeout = 10'000'000'000;
  Prepare();
  if (!IsOwnProcessId() || !Ready() || ThreadOfRecorder() == 0) return EAGAIN;
  DumpRequest request;
  request.reason.Add("api");
  if (path != nullptr) {
    // The recorder's thread has the same working directory.
    request.path = path;
    if (request.path.size() >= sizeof(heapflare::base::Path)) return ENAMETOOLONG;
    if (request.path.empty()) return ENOENT;
  }
  const int slot = requests.Post(request);
  DumpResult result;
  if (slot < 0) return EBUSY;
  return requests.Wait(slot, kTimeout, &result) ? result.error : ETIMEDOUT;
}

int heapflare_leak_check_now(void) {
  if (!recorder.settings.leak_check) return -1;
  return CheckLeaksNow(__builtin_return_address(0));
}

int heapflare_ignore(const void* block) {
  if (!recorder.settings.leak_check) return EAGAIN;
  return MarkIgnored(block) ? 0 : ENOENT;
}

void heapflare_leak_check_disable(void) { ++thread_state.leaks_ignored; }

void heapflare_leak_check_enable(void) {
  if (thread_state.leaks_ignored > 0) --thread_state.leaks_ignored;
}

size_t heapflare_sample_interval(void) { return recorder.interval.load(std::memory_order_relaxed); }

int heapflare_set_sample_interval(size_t bytes) {
  constexpr size_t kLargest = size_t{1} << 40;
  if (bytes > kLargest) return EINVAL;
  Prepare();
  if (recorder.phase.load(std::memory_order_acquire) == Phase::kOff) return EAGAIN;
  if (recorder.settings.leak_check && bytes != 1) return EBUSY;
  SetInterval(bytes);
  return 0;
}
