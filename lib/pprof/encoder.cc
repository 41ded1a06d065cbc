#include "lib/pprof/encoder.h"

#include <algorithm>
#include <cstdint>

#include "lib/pprof/addresses.h"
#include "lib/pprof/utf8.h"
#include "lib/pprof/wire.h"

namespace heapflare::pprof {
namespace {

// Field numbers of profile.proto.
enum ProfileField : uint32_t {
  kSampleType = 1,
  kSample = 2,
  kMapping = 3,
  kLocation = 4,
  kFunction = 5,
  kStringTable = 6,
  kTimeNanos = 9,
  kPeriodType = 11,
  kPeriod = 12,
  kComment = 13,
  kDefaultSampleType = 14,
};
enum ValueTypeField : uint32_t { kType = 1, kUnit = 2 };
enum SampleField : uint32_t { kLocationIds = 1, kValues = 2, kLabel = 3 };
enum LabelField : uint32_t { kKey = 1, kString = 2, kNumber = 3, kNumberUnit = 4 };
enum MappingField : uint32_t {
  kMappingId = 1,
  kStart = 2,
  kLimit = 3,
  kOffset = 4,
  kFilename = 5,
  kBuildId = 6,
  kHasFunctions = 7,
};
enum LocationField : uint32_t { kLocationId = 1, kLocationMapping = 2, kAddress = 3, kLine = 4 };
enum LineField : uint32_t { kLineFunction = 1 };
enum FunctionField : uint32_t { kFunctionId = 1, kFunctionName = 2, kFunctionSystemName = 3 };

// The string table: these, then the comments, then path and build id of each module in turn.
constexpr const char* kStrings[] = {"",
                                    "alloc_objects",
                                    "count",
                                    "alloc_space",
                                    "bytes",
                                    "inuse_objects",
                                    "inuse_space",
                                    "space",
                                    "request",
                                    "straw",
                                    "[unknown]",
                                    "[heapflare]",
                                    "[truncated: deeper than the limit on frames]",
                                    "[not unwound further]",
                                    "[other stacks: no room left in the box]"};
enum String : uint64_t {
  kEmpty,
  kAllocObjects,
  kCount,
  kAllocSpace,
  kBytes,
  kInuseObjects,
  kInuseSpace,
  kSpace,
  kRequest,
  kStraw,
  kUnknownMapping,
  kOwnMapping,
  kFirstNote,
  kStringCount = std::size(kStrings),
};

// The format's numbers are signed, and a damaged box or a foolish request may have any.
uint64_t Signed(uint64_t value) { return std::min(value, uint64_t{INT64_MAX}); }

// Frames that stand for what is not known; each is a location and a function of its own.
enum Note : uint64_t { kTruncated, kNotUnwound, kOther, kNoteCount };

class Encoder {
 public:
  Encoder(const box::Reader& box, const EncodeOptions& options, Sink* sink)
      : box_(box),
        options_(options),
        sink_(sink),
        addresses_(box),
        error_(box),
        locations_(box.location_count()) {
    base::Text<256> text;
    while (Comment(box_, options_, error_, static_cast<int>(comments_), &text)) ++comments_;
  }

  bool Run() {
    return SampleTypes() && Samples() && Mappings() && Locations() && Functions() && Strings() &&
           Rest();
  }

 private:
  // Ids: modules, then the two mappings of our own; locations of the box, then the notes.
  uint64_t unknown_mapping() const { return addresses_.modules() + 1; }
  uint64_t own_mapping() const { return addresses_.modules() + 2; }
  uint64_t note_location(uint64_t note) const { return locations_ + 1 + note; }
  uint64_t module_string(uint64_t module) const { return kStringCount + comments_ + 2 * module; }

  template <size_t kCapacity>
  bool Put(uint32_t field, const Message<kCapacity>& message) {
    outer_.Clear();
    outer_.AddMessage(field, message);
    return !message.overflowed() && !outer_.overflowed() &&
           sink_->Write(outer_.view().data(), outer_.view().size());
  }
  bool PutString(std::string_view text) {
    outer_.Clear();
    outer_.AddBytes(kStringTable, text);
    return !outer_.overflowed() && sink_->Write(outer_.view().data(), outer_.view().size());
  }
  template <size_t kCapacity>
  bool PutRaw(const Message<kCapacity>& fields) {
    return sink_->Write(fields.view().data(), fields.view().size());
  }

  bool ValueType(uint32_t field, uint64_t type, uint64_t unit) {
    Message<32> message;
    message.AddVarint(kType, type);
    message.AddVarint(kUnit, unit);
    return Put(field, message);
  }

  bool SampleTypes() {
    return ValueType(kSampleType, kAllocObjects, kCount) &&
           ValueType(kSampleType, kAllocSpace, kBytes) &&
           ValueType(kSampleType, kInuseObjects, kCount) &&
           ValueType(kSampleType, kInuseSpace, kBytes);
  }

  bool Samples() {
    box::StackView stack = {};
    for (uint64_t i = 0; i < box_.stack_count(); ++i) {
      if (!box_.stack(i, &stack) || stack.allocated_objects == 0) continue;
      error_.Add(stack);
      const uint64_t values[] = {
          box::WholeObjects(stack.allocated_objects), box::WholeBytes(stack.allocated_bytes),
          box::WholeObjects(stack.live_objects), box::WholeBytes(stack.live_bytes)};
      if (!OneSample(stack, values, values[1] / (values[0] == 0 ? 1 : values[0]), false)) {
        return false;
      }
    }
    const Straw& straw = options_.straw;
    if (straw.bytes == 0 || !box_.stack(straw.stack, &stack)) return true;
    const uint64_t bytes = Signed(straw.bytes);
    const uint64_t values[] = {1, bytes, 1, bytes};
    return OneSample(stack, values, bytes, true);
  }

  bool OneSample(const box::StackView& stack, const uint64_t (&values)[4], uint64_t size,
                 bool straw) {
    ids_.Clear();
    for (uint32_t i = 0; i < stack.depth; ++i) {
      const uint64_t index = stack.frames[i];
      if (index < locations_) ids_.AddPacked(index + 1);
    }
    if ((stack.flags & box::kStackTruncated) != 0) ids_.AddPacked(note_location(kTruncated));
    if ((stack.flags & box::kStackIncomplete) != 0) ids_.AddPacked(note_location(kNotUnwound));
    if ((stack.flags & box::kStackOther) != 0) ids_.AddPacked(note_location(kOther));
    Message<64> packed_values;
    for (const uint64_t value : values) packed_values.AddPacked(value);

    sample_.Clear();
    sample_.AddMessage(kLocationIds, ids_);
    sample_.AddMessage(kValues, packed_values);
    Message<64> label;
    label.AddVarint(kKey, kBytes);
    label.AddVarint(kNumber, size);
    label.AddVarint(kNumberUnit, kBytes);
    if (size > 0) sample_.AddMessage(kLabel, label);
    if (straw) {
      label.Clear();
      label.AddVarint(kKey, kRequest);
      label.AddVarint(kString, kStraw);
      sample_.AddMessage(kLabel, label);
    }
    return Put(kSample, sample_);
  }

  bool Mappings() {
    Message<128> mapping;
    for (uint64_t i = 0; i < addresses_.modules(); ++i) {
      box::ModuleView module = {};
      box_.module(i, &module);
      const uint64_t moved = addresses_.Moved(i);
      mapping.Clear();
      mapping.AddVarint(kMappingId, i + 1);
      mapping.AddVarint(kStart, module.start + moved);
      mapping.AddVarint(kLimit, module.limit + moved);
      mapping.AddVarint(kOffset, module.file_offset);
      mapping.AddVarint(kFilename, module_string(i));
      mapping.AddVarint(kBuildId, module_string(i) + 1);
      if (!Put(kMapping, mapping)) return false;
    }
    mapping.Clear();
    mapping.AddVarint(kMappingId, unknown_mapping());
    mapping.AddVarint(kLimit, ~uint64_t{0});
    mapping.AddVarint(kFilename, kUnknownMapping);
    if (!Put(kMapping, mapping)) return false;
    mapping.Clear();
    mapping.AddVarint(kMappingId, own_mapping());
    mapping.AddVarint(kStart, kOwnStart);
    mapping.AddVarint(kLimit, kOwnStart + 4096);
    mapping.AddVarint(kFilename, kOwnMapping);
    mapping.AddVarint(kHasFunctions, 1);
    return Put(kMapping, mapping);
  }

  bool Locations() {
    Message<64> message;
    for (uint64_t i = 0; i < locations_; ++i) {
      box::Location location = {};
      uint64_t mapping = unknown_mapping();
      // A slot that a kill left empty: nothing refers to it, but ids have no gaps.
      uint64_t address = i + 1;
      if (box_.location(i, &location)) {
        mapping = addresses_.Resolve(i, location, &address) ? location.module_plus_one : mapping;
      }
      message.Clear();
      message.AddVarint(kLocationId, i + 1);
      message.AddVarint(kLocationMapping, mapping);
      message.AddVarint(kAddress, address);
      if (!Put(kLocation, message)) return false;
    }
    for (uint64_t note = 0; note < kNoteCount; ++note) {
      Message<16> line;
      line.AddVarint(kLineFunction, note + 1);
      message.Clear();
      message.AddVarint(kLocationId, note_location(note));
      message.AddVarint(kLocationMapping, own_mapping());
      message.AddVarint(kAddress, kOwnStart + note);
      message.AddMessage(kLine, line);
      if (!Put(kLocation, message)) return false;
    }
    return true;
  }

  bool Functions() {
    for (uint64_t note = 0; note < kNoteCount; ++note) {
      Message<32> function;
      function.AddVarint(kFunctionId, note + 1);
      function.AddVarint(kFunctionName, kFirstNote + note);
      function.AddVarint(kFunctionSystemName, kFirstNote + note);
      if (!Put(kFunction, function)) return false;
    }
    return true;
  }

  bool Strings() {
    for (const char* text : kStrings) {
      if (!PutString(text)) return false;
    }
    base::Text<256> comment;
    for (uint64_t i = 0; i < comments_; ++i) {
      comment.Clear();
      Comment(box_, options_, error_, static_cast<int>(i), &comment);
      // The program's name may be of another encoding, and a long one is cut.
      if (!PutString(ValidUtf8(comment.view(), &path_))) return false;
    }
    for (uint64_t i = 0; i < addresses_.modules(); ++i) {
      box::ModuleView module = {};
      box_.module(i, &module);
      base::Text<2 * box::kBuildIdBytes + 1> build_id;
      for (uint32_t k = 0; k < module.build_id_bytes; ++k) build_id.AddHex(module.build_id[k], 2);
      outer_.Clear();
      outer_.AddBytes(kStringTable, ValidUtf8(module.path.substr(0, kMostPath), &path_));
      outer_.AddBytes(kStringTable, build_id.view());
      if (!PutRaw(outer_)) return false;
    }
    return true;
  }

  bool Rest() {
    Message<128> fields;
    fields.AddVarint(kTimeNanos, Signed(options_.time_utc));
    fields.AddVarint(kPeriod, Signed(box_.header().interval));
    fields.AddVarint(kDefaultSampleType, kInuseSpace);
    for (uint64_t i = 0; i < comments_; ++i) fields.AddVarint(kComment, kStringCount + i);
    return PutRaw(fields) && ValueType(kPeriodType, kSpace, kBytes);
  }

  // The kernel shows no longer ones; a damaged box may have them.
  static constexpr size_t kMostPath = 4095;
  // Addresses of the notes: in the last page of the lower half, where no program is mapped.
  static constexpr uint64_t kOwnStart = 0x7fff'ffff'f000;

  const box::Reader& box_;
  const EncodeOptions& options_;
  Sink* sink_;
  Addresses addresses_;
  LiveError error_;  // complete once the samples are written
  uint64_t locations_;
  uint64_t comments_ = 0;
  // Sized for what can come: 5 bytes per location id, a path of 4 KiB.
  Message<(box::kMaxFrames + 4) * 5> ids_;
  Message<(box::kMaxFrames + 4) * 5 + 256> sample_;
  Message<4096 + 256> outer_;
  base::Path path_;
};

}  // namespace

bool Encode(const box::Reader& box, const EncodeOptions& options, Sink* sink) {
  return Encoder(box, options, sink).Run();
}

}  // namespace heapflare::pprof
