#include "lib/recorder/dump.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

#include "lib/base/say.h"
#include "lib/base/syscall.h"
#include "lib/box/reader.h"
#include "lib/box/totals.h"
#include "lib/pprof/gzip.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/places.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/retention.h"

namespace heapflare::recorder {
namespace {

class FileSink final : public pprof::Sink {
 public:
  explicit FileSink(int fd) : fd_(fd) {}
  bool Write(const void* data, size_t bytes) override {
    error_ = base::WriteAll(fd_, data, bytes);
    written_ += bytes;
    return error_ == 0;
  }
  int error() const { return error_; }
  uint64_t written() const { return written_; }

 private:
  int fd_;
  int error_ = 0;
  uint64_t written_ = 0;
};

// Large, and used by the recorder's thread alone.
constinit pprof::Gzip gzip;
constinit Retention retention;
constinit int last_error = 0;

// Encodes the box into `fd`; 0 or negative errno.
int Encode(const DumpRequest& request, int fd, uint64_t* written) {
  base::Text<256> problem;
  box::Reader reader;
  if (!reader.Open(recorder.mapping.base(), recorder.mapping.bytes(), &problem)) return -EIO;
  const pprof::EncodeOptions options = {.time_utc = static_cast<uint64_t>(base::UtcNanoseconds()),
                                        .reason = request.reason.c_str(),
                                        .usage = request.usage,
                                        .limit = request.limit,
                                        .straw = request.straw};
  FileSink file(fd);
  if (!gzip.Begin(&file)) return -ENOMEM;
  const bool complete = pprof::Encode(reader, options, &gzip) && gzip.Finish();
  *written = file.written();
  if (file.error() != 0) return file.error();
  return complete ? 0 : -EIO;
}

void NameOf(uint32_t number, std::string_view reason, base::Path* path) {
  DumpDirectory(recorder.settings, path);
  path->Add('/');
  Stem(recorder.identity.program.view(), OwnProcessId(),
       recorder.identity.start_utc / 1'000'000'000, path);
  path->Add('.').AddNumber(number, 4).Add('.').Add(reason).Add(".pb.gz");
}

// Gives a file without a name the name `path`; one that exists is replaced, by way of `temporary`.
int Name(int fd, const base::Path& temporary, const base::Path& path) {
  base::Text<64> from("/proc/thread-self/fd/");
  from.AddNumber(static_cast<uint64_t>(fd));
  const int error = base::Link(from.c_str(), path.c_str());
  if (error != -EEXIST) return error;
  if (const int linked = base::Link(from.c_str(), temporary.c_str()); linked != 0) return linked;
  const int renamed = base::Rename(temporary.c_str(), path.c_str());
  if (renamed != 0) base::Unlink(temporary.c_str());
  return renamed;
}

// Writes a file that gets its name when it is complete: if we are killed on the way, which is what
// dumps are for, nothing of it is left. Not every file system can do that, and /proc is needed:
// then *possible is false.
int WriteNameless(const DumpRequest& request, const base::Path& temporary, const base::Path& path,
                  uint64_t* written, bool* possible) {
  const size_t slash = temporary.view().rfind('/');
  base::Path directory(slash == std::string_view::npos ? "."
                                                       : temporary.view().substr(0, slash + 1));
  const int fd = base::Open(directory.c_str(), O_WRONLY | O_TMPFILE, 0600);
  *possible = fd >= 0;
  if (fd < 0) return fd;
  int error = Encode(request, fd, written);
  if (error == 0) {
    error = Name(fd, temporary, path);
    *possible = error == 0;
  }
  base::Close(fd);
  return error;
}

// Writes under a temporary name, then renames.
int WriteAndRename(const DumpRequest& request, const base::Path& temporary, const base::Path& path,
                   uint64_t* written) {
  const int fd = base::Open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (fd < 0) return fd;
  int error = Encode(request, fd, written);
  if (const int closed = base::Close(fd); error == 0) error = closed;
  if (error == 0) error = base::Rename(temporary.c_str(), path.c_str());
  if (error != 0) base::Unlink(temporary.c_str());
  return error;
}

// 0 or negative errno.
int WriteFile(const DumpRequest& request, const base::Path& path, uint64_t* written) {
  const size_t slash = path.view().rfind('/');
  base::Path temporary(slash == std::string_view::npos ? "" : path.view().substr(0, slash + 1));
  temporary.Add(".heapflare-").AddNumber(static_cast<uint64_t>(OwnProcessId()));
  temporary.Add('-').AddNumber(static_cast<uint64_t>(base::MonotonicNanoseconds())).Add(".tmp");
  if (path.truncated() || temporary.truncated()) return -ENAMETOOLONG;
  bool possible = false;
  const int error = WriteNameless(request, temporary, path, written, &possible);
  return possible ? error : WriteAndRename(request, temporary, path, written);
}

void ReportFailure(const base::Path& path, int error) {
  if (error == last_error) return;
  last_error = error;
  base::Text<1024> line("cannot write ");
  line.Add(path.view()).Add(" (errno ").AddNumber(static_cast<uint64_t>(-error)).Add("); ");
  base::Say(line.Add(recorder.box_path.size() > 0 ? "the box still has the profile"
                                                  : "set HEAPFLARE_DIR to a writable directory")
                .view());
}

void ReportSuccess(const DumpRequest& request, const base::Path& path) {
  base::Text<1024> line("dump ");
  line.Add(path.view()).Add(" (").Add(request.reason.view());
  if (request.usage != box::kUnknown) line.Add(", ").AddSize(request.usage);
  if (request.limit != box::kUnknown) line.Add(" of ").AddSize(request.limit);
  base::Say(line.Add(')').view());
}

void RemoveSurplus(uint32_t number, uint64_t live_bytes, const DumpRequest& request) {
  Retention::Kept dump = {.number = number, .live_bytes = live_bytes, .reason = {}};
  memcpy(dump.reason, request.reason.c_str(), std::min(request.reason.size(), sizeof(dump.reason)));
  Retention::Kept victim = {};
  if (!retention.Add(dump, recorder.settings.keep, &victim)) return;
  base::Path path;
  NameOf(victim.number, {victim.reason, strnlen(victim.reason, sizeof(victim.reason))}, &path);
  base::Unlink(path.c_str());
}

}  // namespace

void TouchDumpBuffers() { gzip.Touch(); }

void ForgetDumps() { retention.Clear(); }

void WriteDump(const DumpRequest& request, DumpResult* result) {
  box::Header* header = Header();
  if (header == nullptr) {
    result->error = EAGAIN;
    return;
  }
  const int64_t started = base::MonotonicNanoseconds();
  ScanModules();
  const uint32_t number = box::Atomic(header->dumps).load(std::memory_order_relaxed) + 1;
  const bool by_rule = request.path.empty();
  int error = 0;
  if (by_rule) {
    base::Path directory;
    DumpDirectory(recorder.settings, &directory);
    error = UseDirectory(directory.c_str());
    NameOf(number, request.reason.view(), &result->path);
  } else {
    result->path = base::Path(request.path);
  }
  uint64_t written = 0;
  if (error == 0) error = WriteFile(request, result->path, &written);
  result->error = -error;
  if (error != 0) {
    NoteEvent(box::EventKind::kDumpFailed, number, static_cast<uint64_t>(-error), 0,
              request.reason.view(), request.usage);
    ReportFailure(result->path, error);
    return;
  }
  last_error = 0;
  const auto took = static_cast<uint64_t>(base::MonotonicNanoseconds() - started);
  box::Atomic(header->dumps).store(number, std::memory_order_relaxed);
  NoteEvent(box::EventKind::kDump, number, written, took, request.reason.view(), request.usage);
  const uint64_t live = box::WholeBytes(box::SumTallies(*header).live_bytes());
  if (by_rule) RemoveSurplus(number, live, request);
  if (recorder.settings.verbose) ReportSuccess(request, result->path);
}

}  // namespace heapflare::recorder
