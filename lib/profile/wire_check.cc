#include "lib/profile/wire_check.h"

#include "absl/strings/str_format.h"

namespace heapflare::profile {
namespace {

// Wire types, https://protobuf.dev/programming-guides/encoding/
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Reads fields off the front of a message.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  // False at the end, or where it cannot be understood; `damaged()` tells which. `payload` is set
  // for kBytes.
  bool Next(uint64_t* field, uint32_t* type, std::string_view* payload) {
    uint64_t tag = 0;
    if (rest_.empty() || !Varint(&tag)) return false;
    *field = tag >> 3;
    *type = tag & 7;
    *payload = {};
    uint64_t length = 0;
    switch (*type) {
      case kVarint:
        return Varint(&length);
      case kFixed64:
        length = 8;
        break;
      case kFixed32:
        length = 4;
        break;
      case kBytes:
        if (!Varint(&length)) return false;
        break;
      default:
        damaged_ = true;
        return false;
    }
    if (length > rest_.size()) {
      damaged_ = true;
      return false;
    }
    if (*type == kBytes) *payload = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
  }
  bool damaged() const { return damaged_; }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 70 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      if (shift < 64) *value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    damaged_ = true;
    return false;
  }

  std::string_view rest_;
  bool damaged_ = false;
};

struct Counts {
  uint64_t messages = 0;
  uint64_t numbers = 0;
};

// What one sample or location holds: labels and lines are messages, the rest numbers, packed or
// not.
bool CountInner(std::string_view bytes, uint64_t message_field, Counts* counts) {
  Fields fields(bytes);
  uint64_t field = 0;
  uint32_t type = 0;
  std::string_view payload;
  while (fields.Next(&field, &type, &payload)) {
    if (type != kBytes) {
      ++counts->numbers;
    } else if (field == message_field) {
      ++counts->messages;
    } else {
      for (const char byte : payload) counts->numbers += static_cast<uint8_t>(byte) < 0x80 ? 1 : 0;
    }
  }
  return !fields.damaged();
}

}  // namespace

absl::Status CheckWire(std::string_view bytes) {
  constexpr uint64_t kSample = 2;
  constexpr uint64_t kLabelOfSample = 3;
  constexpr uint64_t kLocation = 4;
  constexpr uint64_t kLineOfLocation = 4;
  Counts counts;
  Fields fields(bytes);
  uint64_t field = 0;
  uint32_t type = 0;
  std::string_view payload;
  bool whole = true;
  while (whole && fields.Next(&field, &type, &payload)) {
    if (type != kBytes) {
      ++counts.numbers;
      continue;
    }
    ++counts.messages;
    if (field == kSample) whole = CountInner(payload, kLabelOfSample, &counts);
    if (field == kLocation) whole = CountInner(payload, kLineOfLocation, &counts);
  }
  if (!whole || fields.damaged()) {
    return absl::DataLossError("not a pprof profile, or a damaged one (no protobuf message)");
  }
  if (counts.messages > kMaximumMessages || counts.numbers > kMaximumNumbers) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("has %d messages and %d numbers; no heap profile has that many",
                        counts.messages, counts.numbers));
  }
  return absl::OkStatus();
}

}  // namespace heapflare::profile
