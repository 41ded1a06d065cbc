#include "lib/control/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstddef>

#include "absl/strings/str_format.h"
#include "lib/base/syscall.h"
#include "lib/box/format.h"
#include "lib/target/files.h"
#include "lib/target/process.h"

namespace heapflare::control {
namespace {

using target::Descriptor;
using target::FileError;

constexpr int64_t kPollNs = 2'000'000;

void Pause() {
  const timespec pause = {.tv_sec = 0, .tv_nsec = kPollNs};
  nanosleep(&pause, nullptr);
}

bool Ended(int pid) {
  if (pid == 0) return false;
  const auto process = target::LookUp(pid);
  return !process || process->zombie;
}

absl::StatusOr<Descriptor> OpenControl(const std::string& path) {
  Descriptor fd(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() < 0) {
    const int error = errno;
    if (error == ENOENT) {
      return absl::NotFoundError(
          path + ": no control file: the process has ended, or its recorder could not make one");
    }
    struct stat status = {};
    if (error == EACCES && stat(path.c_str(), &status) == 0) {
      return absl::PermissionDeniedError(absl::StrFormat(
          "%s: belongs to user %d; ask as that user or as root", path, status.st_uid));
    }
    return FileError(path, "cannot be opened", error);
  }
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(path + ": not a control file");
  }
  return fd;
}

// Other clients hold it while they wait for their answer; flock itself would wait without end.
absl::Status Lock(const std::string& path, int fd, int64_t deadline) {
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return FileError(path, "cannot be locked", errno);
    if (base::MonotonicNanoseconds() >= deadline) {
      return absl::DeadlineExceededError(
          path + ": another request is under way; try again with a longer --timeout");
    }
    Pause();
  }
  return absl::OkStatus();
}

uint64_t ReadSequence(int fd, uint64_t offset) {
  uint64_t sequence = 0;
  return pread(fd, &sequence, sizeof(sequence), static_cast<off_t>(offset)) == sizeof(sequence)
             ? sequence
             : 0;
}

// Adds 1 to the doorbell and wakes who waits there, in one system call: the kernel touches the
// page, so that a box that shrinks meanwhile gives an error here and not a SIGBUS. A recorder that
// is not woken looks once a second anyway, so nothing is lost if this fails.
void Ring(const std::string& box_path) {
  const Descriptor fd(open(box_path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() < 0) return;
  constexpr size_t kPage = 4096;
  void* mapped = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return;
  auto* const doorbell = reinterpret_cast<uint32_t*>(static_cast<std::byte*>(mapped) +
                                                     offsetof(box::Header, doorbell));
  syscall(SYS_futex, doorbell, FUTEX_WAKE_OP, INT_MAX, 0L, doorbell,
          FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0));
  munmap(mapped, kPage);
}

absl::StatusOr<std::string> TextOf(const std::string& path, const box::ControlAnswer& answer) {
  if (answer.error == 0) {
    return std::string(answer.text, std::min<size_t>(answer.text_bytes, sizeof(answer.text)));
  }
  return absl::InternalError(
      absl::StrFormat("%s: the recorder cannot do it: %s", path, strerror(answer.error)));
}

}  // namespace

std::string ControlPath(const std::string& box_path) {
  constexpr std::string_view kSuffix = ".box";
  if (!box_path.ends_with(kSuffix)) return "";
  return box_path.substr(0, box_path.size() - kSuffix.size()) + ".ctl";
}

absl::StatusOr<std::string> Ask(const std::string& box_path, int pid, const Request& request,
                                int64_t timeout_ns) {
  const int64_t deadline = base::MonotonicNanoseconds() + timeout_ns;
  const std::string path = ControlPath(box_path);
  if (path.empty()) {
    return absl::FailedPreconditionError(
        box_path +
        ": a box without a name has no control file; it can be read with: heapflare dump");
  }
  const auto fd = OpenControl(path);
  if (!fd.ok()) return fd.status();
  if (const absl::Status status = Lock(path, fd->get(), deadline); !status.ok()) return status;

  const uint64_t before = std::max(
      ReadSequence(fd->get(), box::kAnswerOffset),
      ReadSequence(fd->get(), box::kRequestOffset + offsetof(box::ControlRequest, sequence)));
  if (before == UINT64_MAX) {
    return absl::DataLossError(path + ": damaged: its sequence numbers are used up");
  }
  const box::ControlRequest written = {.magic = box::kControlMagic,
                                       .sequence = before + 1,
                                       .kind = static_cast<uint32_t>(request.kind),
                                       .unused = 0,
                                       .argument = request.argument};
  if (pwrite(fd->get(), &written, sizeof(written), box::kRequestOffset) != sizeof(written)) {
    return FileError(path, "cannot be written", errno);
  }
  Ring(box_path);

  for (;;) {
    box::ControlAnswer answer = {};
    const bool whole =
        pread(fd->get(), &answer, sizeof(answer), box::kAnswerOffset) == sizeof(answer);
    if (whole && answer.sequence == written.sequence) return TextOf(path, answer);
    if (Ended(pid)) return absl::AbortedError(path + ": the process ended before it answered");
    if (base::MonotonicNanoseconds() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrFormat("%s: no answer within %.1f s; the process may be stopped, and its box "
                          "can be read all the "
                          "same: heapflare dump",
                          path, static_cast<double>(timeout_ns) / 1e9));
    }
    Pause();
  }
}

}  // namespace heapflare::control
