#include "lib/profile/gunzip.h"

#include <zlib.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_format.h"

namespace heapflare::profile {
namespace {

struct End {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};

}  // namespace

absl::StatusOr<std::string> Gunzip(std::string_view compressed, size_t most) {
  z_stream stream = {};
  constexpr int kGzipOnly = 15 + 16;  // the largest window; see inflateInit2
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) {
    return absl::ResourceExhaustedError("no memory to decompress it");
  }
  const std::unique_ptr<z_stream, End> end(&stream);
  std::string out;
  size_t used = 0;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
  // What does not fit zlib's counter is beyond every limit of ours.
  constexpr size_t kMostInput = size_t{1} << 31;
  if (compressed.size() > kMostInput) return absl::ResourceExhaustedError("too large");
  stream.avail_in = static_cast<uInt>(compressed.size());
  for (;;) {
    if (used == out.size()) {
      if (used > most) {
        return absl::ResourceExhaustedError(
            absl::StrFormat("decompresses to more than %d MiB; no heap profile does", most >> 20));
      }
      out.resize(std::min(most + 1, std::max<size_t>(used * 2, 64 << 10)));
    }
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + used);
    stream.avail_out = static_cast<uInt>(out.size() - used);
    const int result = inflate(&stream, Z_NO_FLUSH);
    used = out.size() - stream.avail_out;
    if (result == Z_STREAM_END) {
      if (stream.avail_in == 0) break;
      if (inflateReset(&stream) != Z_OK) return absl::DataLossError("damaged gzip data");
      continue;
    }
    if (result == Z_BUF_ERROR || (result == Z_OK && stream.avail_in == 0 && stream.avail_out > 0)) {
      return absl::DataLossError("gzip data that is cut off");
    }
    if (result != Z_OK) {
      return absl::DataLossError(absl::StrFormat(
          "damaged gzip data (%s)", stream.msg == nullptr ? "no reason given" : stream.msg));
    }
  }
  if (used > most) return absl::ResourceExhaustedError("too large");
  out.resize(used);
  return out;
}

}  // namespace heapflare::profile
