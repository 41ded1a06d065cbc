#include "lib/profile/write_file.h"

#include <memory>

#include "lib/pprof/gzip.h"
#include "lib/profile/fd_sink.h"
#include "lib/target/files.h"

namespace heapflare::profile {

absl::Status WriteFile(const std::string& path, const Profile& profile) {
  auto file = target::NewFile::Create(path);
  if (!file.ok()) return file.status();
  const std::string bytes = profile.SerializeAsString();
  FdSink sink(file->fd());
  const auto gzip = std::make_unique<pprof::Gzip>();
  const bool written = gzip->Begin(&sink) && gzip->Write(bytes.data(), bytes.size()) &&
                       gzip->Finish() && sink.Flush();
  if (!written) return target::FileError(path, "cannot be written", sink.error());
  return file->Replace();
}

}  // namespace heapflare::profile
