// A box, copied into memory: of a living process or a dead one.
//
// Never mapped, since a file that shrinks under a mapping kills the reader. Only what has data is
// read: a box is mostly holes.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "lib/box/reader.h"

namespace heapflare::target {

enum class Parts {
  kAll,
  kTimeline,  // the header and the rings of the timeline: enough to list a box
};

class BoxFile {
 public:
  // Errors say "PATH: what it is; what would be right".
  static absl::StatusOr<BoxFile> Load(const std::string& path, Parts parts = Parts::kAll);

  const std::string& path() const { return path_; }
  const box::Reader& reader() const { return *reader_; }
  const box::Header& header() const { return reader_->header(); }

  // Bytes that are live by the header's sums.
  uint64_t live_bytes() const;
  // The latest point of the timeline; false if there is none.
  bool LastPoint(box::TimelinePoint* point) const;

 private:
  struct Unmap {
    size_t bytes;
    void operator()(std::byte* memory) const;
  };
  BoxFile() = default;

  std::string path_;
  std::unique_ptr<std::byte, Unmap> memory_{nullptr, Unmap{0}};
  std::unique_ptr<box::Reader> reader_;
};

// Only the header, checked; for finding a box among many.
absl::StatusOr<box::Header> ReadBoxHeader(const std::string& path);

}  // namespace heapflare::target
