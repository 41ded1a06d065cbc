// Profiles into memory: from a file, gzip-compressed or not, or from a box.
//
// A file may come from anywhere: it is checked here, once, and what comes out keeps these promises,
// on which the other parts rely:
//   - every string index lies in string_table, which begins with "" and is not empty
//   - ids are unique and not zero; every id that is referred to exists (but Location.mapping_id may
//   be 0)
//   - every sample has one value for each sample type
// What a file can make us allocate is bounded by its own size, and that by kMaximumProfileBytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/box/reader.h"
#include "lib/pprof/encoder.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

// Not compressed. A box of 16 MiB makes about 2 MiB.
inline constexpr size_t kMaximumProfileBytes = 256 << 20;

// Errors say "PATH: what".
absl::StatusOr<Profile> LoadFile(const std::string& path);
// The bytes of a profile file, not compressed; checked like the above.
absl::StatusOr<std::string> ReadUncompressed(const std::string& path);

// Errors say what, in words that follow "PATH: ".
absl::StatusOr<Profile> Parse(std::string_view bytes);

absl::StatusOr<Profile> FromBox(const box::Reader& box, const pprof::EncodeOptions& options);

}  // namespace heapflare::profile
