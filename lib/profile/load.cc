#include "lib/profile/load.h"

#include "absl/strings/str_format.h"
#include "lib/profile/gunzip.h"
#include "lib/profile/validate.h"
#include "lib/profile/wire_check.h"
#include "lib/target/files.h"

namespace heapflare::profile {
namespace {

class StringSink final : public pprof::Sink {
 public:
  bool Write(const void* data, size_t bytes) override {
    // Stacks of a hostile box can share their frames, and so add up to far more than its size.
    if (bytes > kMostOfBox - bytes_.size()) return false;
    bytes_.append(static_cast<const char*>(data), bytes);
    return true;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  static constexpr size_t kMostOfBox = 1 << 30;
  std::string bytes_;
};

absl::Status About(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrFormat("%s: %s", path, std::string(status.message())));
}

}  // namespace

absl::StatusOr<Profile> Parse(std::string_view bytes) {
  if (const absl::Status status = CheckWire(bytes); !status.ok()) return status;
  Profile profile;
  if (!profile.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError("not a pprof profile, or a damaged one");
  }
  if (const absl::Status status = Validate(profile); !status.ok()) return status;
  return profile;
}

absl::StatusOr<std::string> ReadUncompressed(const std::string& path) {
  auto bytes = target::ReadWhole(path, kMaximumProfileBytes);
  if (!bytes.ok() || !IsGzip(*bytes)) return bytes;
  auto plain = Gunzip(*bytes, kMaximumProfileBytes);
  if (!plain.ok()) return About(path, plain.status());
  return plain;
}

absl::StatusOr<Profile> LoadFile(const std::string& path) {
  const auto bytes = ReadUncompressed(path);
  if (!bytes.ok()) return bytes.status();
  auto profile = Parse(*bytes);
  if (!profile.ok()) return About(path, profile.status());
  return profile;
}

absl::StatusOr<Profile> FromBox(const box::Reader& box, const pprof::EncodeOptions& options) {
  StringSink sink;
  if (!pprof::Encode(box, options, &sink)) {
    return absl::ResourceExhaustedError("holds more than a profile can");
  }
  Profile profile;
  if (!profile.ParseFromArray(sink.bytes().data(), static_cast<int>(sink.bytes().size()))) {
    return absl::ResourceExhaustedError("holds more than a profile can");
  }
  if (const absl::Status status = Validate(profile); !status.ok()) return status;
  return profile;
}

}  // namespace heapflare::profile
