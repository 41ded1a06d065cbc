#include "lib/recorder/kernel_contents.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>
#include <string_view>

#include "lib/base/directory.h"
#include "lib/base/line_reader.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"

namespace heapflare::recorder {
namespace {

// A copy of what is in the pipe, through a pipe of our own.
long CopyPipe(const char* path, void* buffer) {
  // Another opening of it, that can read and does not wait.
  const int from = base::Open(path, O_RDONLY | O_NONBLOCK);
  if (from < 0) return from;
  int ends[2] = {-1, -1};
  long got = base::Syscall(SYS_pipe2, base::Arg(ends), O_CLOEXEC | O_NONBLOCK);
  if (got == 0) {
    constexpr long kNonBlocking = 2;  // SPLICE_F_NONBLOCK
    got =
        base::Syscall(SYS_tee, from, ends[1], static_cast<long>(kKernelBufferBytes), kNonBlocking);
    if (got > 0) got = base::Read(ends[0], buffer, kKernelBufferBytes);
    base::Close(ends[0]);
    base::Close(ends[1]);
  }
  base::Close(from);
  return got;
}

void VisitFile(int fd, void* buffer, VisitBytes visit, void* context) {
  constexpr uint64_t kMost = uint64_t{64} << 20;
  for (uint64_t at = 0; at < kMost; at += kKernelBufferBytes) {
    const long got = base::PRead(fd, buffer, kKernelBufferBytes, at);
    if (got <= 0) return;
    visit(context, buffer, static_cast<size_t>(got));
  }
}

// "eventfd-count:             5f3a10"
void VisitEventfd(int fd, VisitBytes visit, void* context) {
  base::Text<64> path("/proc/self/fdinfo/");
  path.AddNumber(static_cast<uint64_t>(fd));
  char text[256];
  base::LineReader lines(base::Open(path.c_str(), O_RDONLY), text, sizeof(text));
  for (std::string_view line; lines.Next(&line);) {
    std::string_view name;
    if (!base::TakeUntil(':', &line, &name) || name != "eventfd-count") continue;
    const auto count = base::ParseHex(base::TrimSpace(line));
    if (count) {
      const uint64_t word = *count;
      visit(context, &word, sizeof(word));
    }
  }
}

}  // namespace

void VisitKernelContents(void* buffer, VisitBytes visit, void* context) {
  base::ForEachEntry("/proc/self/fd", [&](std::string_view name) {
    const auto number = base::ParseNumber(name);
    if (!number) return true;
    const int fd = static_cast<int>(*number);
    base::Text<64> path("/proc/self/fd/");
    path.Add(name);
    char target[64] = {};
    const long bytes = base::ReadLink(path.c_str(), target, sizeof(target));
    if (bytes <= 0) return true;
    const std::string_view what(target, static_cast<size_t>(bytes));
    long got = 0;
    if (what.substr(0, 6) == "pipe:[") {
      got = CopyPipe(path.c_str(), buffer);
    } else if (what.substr(0, 8) == "socket:[") {
      got = base::Syscall(SYS_recvfrom, fd, base::Arg(buffer),
                          static_cast<long>(kKernelBufferBytes), MSG_PEEK | MSG_DONTWAIT);
    } else if (what.substr(0, 7) == "/memfd:") {
      VisitFile(fd, buffer, visit, context);
    } else if (what == "anon_inode:[eventfd]") {
      VisitEventfd(fd, visit, context);
    } else {
      // A named pipe.
      base::FileStatus status = {};
      if (base::Status(fd, &status) == 0 && (status.mode & S_IFMT) == S_IFIFO) {
        got = CopyPipe(path.c_str(), buffer);
      }
    }
    if (got > 0) visit(context, buffer, static_cast<size_t>(got));
    return true;
  });
}

}  // namespace heapflare::recorder
