// Profiles: out of boxes and files, into folded stacks and JSON.
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>
#include <random>
#include <set>

#include "lib/profile/export.h"
#include "lib/profile/folded.h"
#include "lib/profile/frames.h"
#include "lib/profile/gunzip.h"
#include "lib/profile/json.h"
#include "lib/profile/load.h"
#include "lib/profile/validate.h"
#include "lib/profile/wire_check.h"
#include "tests/support/box_builder.h"

namespace heapflare::profile {
namespace {

using test::BoxBuilder;
using test::TemporaryDirectory;

class StringSink final : public pprof::Sink {
 public:
  bool Write(const void* data, size_t bytes) override {
    text.append(static_cast<const char*>(data), bytes);
    return true;
  }
  std::string text;
};

std::string Compress(const std::string& plain) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, plain.size()), 0);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// main -> Outer -> (Inner inlined) with 100 bytes, and a stack without symbols with 50.
Profile Symbolized() {
  Profile profile;
  for (const char* text : {"", "inuse_space", "bytes", "main", "Outer", "In;ner\n", "a.cc",
                           "/usr/bin/checkout", "abcd", "size"}) {
    profile.add_string_table(text);
  }
  ValueType* type = profile.add_sample_type();
  type->set_type(1);
  type->set_unit(2);
  Mapping* mapping = profile.add_mapping();
  mapping->set_id(1);
  mapping->set_memory_start(0x400000);
  mapping->set_memory_limit(0x500000);
  mapping->set_file_offset(0x1000);
  mapping->set_filename(7);
  mapping->set_build_id(8);
  for (const int name : {3, 4, 5}) {
    Function* function = profile.add_function();
    function->set_id(static_cast<uint64_t>(name));
    function->set_name(name);
    function->set_filename(6);
  }
  const auto add_location = [&](uint64_t id, std::vector<uint64_t> functions) {
    Location* location = profile.add_location();
    location->set_id(id);
    location->set_mapping_id(1);
    location->set_address(0x400000 + id * 16);
    for (const uint64_t function : functions) {
      Line* line = location->add_line();
      line->set_function_id(function);
      line->set_line(88);
    }
  };
  add_location(1, {3});
  add_location(2, {5, 4});
  add_location(3, {});
  Sample* sample = profile.add_sample();
  sample->add_location_id(2);
  sample->add_location_id(1);
  sample->add_value(100);
  Label* label = sample->add_label();
  label->set_key(9);
  label->set_num(10);
  sample = profile.add_sample();
  sample->add_location_id(3);
  sample->add_value(50);
  return profile;
}

TEST(FromBox, HasTheBoxsNumbers) {
  const TemporaryDirectory directory;
  BoxBuilder box(directory.File("a.box"));
  const uint32_t leak = box.AddStack({0x401010, 0x401050});
  box.Allocate(leak, 0x10000, 1000, 3);
  box.Allocate(leak, 0x20000, 500);
  box.Free(0x20000);
  box.Publish();
  const auto file = target::BoxFile::Load(directory.File("a.box"));
  ASSERT_TRUE(file.ok());
  const auto profile = FromBox(file->reader(), DescribeBox(*file, target::Life::kDead));
  ASSERT_TRUE(profile.ok()) << profile.status();
  ASSERT_EQ(profile->sample_size(), 1);
  const Sample& sample = profile->sample(0);
  EXPECT_EQ(sample.value(0), 4);
  EXPECT_EQ(sample.value(1), 3500);
  EXPECT_EQ(sample.value(2), 3);
  EXPECT_EQ(sample.value(3), 3000);
  EXPECT_EQ(profile->time_nanos(), static_cast<int64_t>(BoxBuilder::kStart));
  const Frames frames(*profile);
  EXPECT_EQ(frames.PlaceName(frames.location(sample.location_id(0))), "checkout!0x200f");
  StringSink folded;
  ASSERT_TRUE(WriteFolded(*profile, FindSampleType(*profile, ""), &folded).ok());
  EXPECT_EQ(folded.text, "checkout!0x204f;checkout!0x200f 3000\n");
}

// Two threads met a place at once and the process was killed before one gave way; or a location got
// its module late, when there was another one that had it.
TEST(FromBox, HasEachPlaceOnceThoughTheBoxHasItTwice) {
  for (const bool by_stack : {false, true}) {
    const TemporaryDirectory directory;
    BoxBuilder box(directory.File("a.box"));
    box.Allocate(box.AddStack({0x401010, 0x401050}), 0x10000, 1000);
    auto* locations = box.mapping().Records<box::Location>(box::kLocations);
    EXPECT_EQ(locations[0].flags, 0u);
    EXPECT_EQ(locations[1].flags, 0u);
    if (by_stack) {
      // Nobody knew its module; now it has one. A stack leads to it.
      const uint32_t late = box.AddStack({0x601010});
      box.Allocate(late, 0x20000, 500);
      const uint64_t last = box.header().regions[box::kLocations].used - 1;
      EXPECT_EQ(locations[last].flags, box::kLocationMayBeTwin);
      EXPECT_EQ(locations[last].module_plus_one, 0u);
      locations[last].pc = locations[0].pc;
      locations[last].module_plus_one = locations[0].module_plus_one;
    } else {
      uint64_t index = 0;
      ASSERT_TRUE(box.mapping().Take(box::kLocations, 1, &index));
      locations[index] = locations[1];
      locations[index].flags = box::kLocationMayBeTwin;
    }
    box.Publish();
    const auto file = target::BoxFile::Load(directory.File("a.box"));
    ASSERT_TRUE(file.ok());
    const auto profile = FromBox(file->reader(), DescribeBox(*file, target::Life::kDead));
    ASSERT_TRUE(profile.ok()) << profile.status();
    std::set<uint64_t> addresses;
    for (const Location& location : profile->location()) {
      EXPECT_TRUE(addresses.insert(location.address()).second) << location.address();
    }
    EXPECT_EQ(profile->location(0).address(), 0x40100f);
    EXPECT_EQ(profile->location(1).address(), 0x40104f);
  }
}

TEST(Folded, WritesInlinedFramesRootFirstAndEscapes) {
  StringSink sink;
  ASSERT_TRUE(WriteFolded(Symbolized(), 0, &sink).ok());
  EXPECT_EQ(sink.text,
            "checkout!0x1030 50\n"
            "main;Outer;In\\x3bner\\x0a 100\n");
}

TEST(Folded, AddsUpStacksThatReadTheSame) {
  Profile profile = Symbolized();
  *profile.add_sample() = profile.sample(0);
  profile.mutable_sample(1)->set_value(0, 0);
  StringSink sink;
  ASSERT_TRUE(WriteFolded(profile, 0, &sink).ok());
  EXPECT_EQ(sink.text, "main;Outer;In\\x3bner\\x0a 200\n") << "and leaves out what has no value";
}

TEST(Json, HasTheDocumentedShape) {
  StringSink sink;
  ASSERT_TRUE(WriteJson(Symbolized(), nullptr, &sink).ok());
  const auto json = nlohmann::json::parse(sink.text);
  EXPECT_EQ(json["format"], "heapflare-profile-1");
  EXPECT_EQ(json["sample_types"][0]["type"], "inuse_space");
  EXPECT_EQ(json["modules"][0]["build_id"], "abcd");
  ASSERT_EQ(json["samples"].size(), 2u);
  const auto& frames = json["samples"][0]["frames"];
  ASSERT_EQ(frames.size(), 3u) << "two at one address, since one is inlined";
  EXPECT_EQ(frames[0]["function"], "In;ner\n");
  EXPECT_EQ(frames[1]["function"], "Outer");
  EXPECT_EQ(frames[2]["function"], "main");
  EXPECT_EQ(frames[2]["line"], 88);
  EXPECT_EQ(frames[2]["address"], "0x400010");
  EXPECT_EQ(frames[2]["offset"], "0x1010");
  EXPECT_EQ(json["samples"][0]["labels"]["size"], 10);
  EXPECT_FALSE(json["samples"][1]["frames"][0].contains("function"));
}

TEST(Json, ReplacesWhatIsNotUtf8) {
  Profile profile = Symbolized();
  profile.set_string_table(3,
                           "ma\xff"
                           "in");
  StringSink sink;
  ASSERT_TRUE(WriteJson(profile, nullptr, &sink).ok());
  EXPECT_TRUE(nlohmann::json::accept(sink.text));
}

TEST(Gunzip, GivesBackWhatWasCompressed) {
  const std::string plain(300'000, 'x');
  EXPECT_EQ(*Gunzip(Compress(plain), plain.size()), plain);
  EXPECT_EQ(*Gunzip(Compress("one") + Compress("two"), 100), "onetwo");
}

TEST(Gunzip, StopsABombAtTheLimit) {
  const std::string bomb = Compress(std::string(64 << 20, 0));
  ASSERT_LT(bomb.size(), 100'000u);
  EXPECT_TRUE(absl::IsResourceExhausted(Gunzip(bomb, 1 << 20).status()));
}

TEST(Gunzip, RefusesWhatIsCutOffOrDamaged) {
  const std::string good = Compress(std::string(1000, 'a') + "bcd");
  for (size_t length = 2; length < good.size(); ++length) {
    EXPECT_TRUE(absl::IsDataLoss(Gunzip(good.substr(0, length), 1 << 20).status())) << length;
  }
  std::string bad = good;
  bad[bad.size() - 6] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(Gunzip(bad, 1 << 20).status())) << "the checksum is checked";
}

TEST(Load, TakesFilesCompressedOrNot) {
  const TemporaryDirectory directory;
  const std::string bytes = Symbolized().SerializeAsString();
  std::ofstream(directory.File("a.pb"), std::ios::binary) << bytes;
  std::ofstream(directory.File("a.pb.gz"), std::ios::binary) << Compress(bytes);
  for (const char* name : {"a.pb", "a.pb.gz"}) {
    const auto profile = LoadFile(directory.File(name));
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_EQ(profile->SerializeAsString(), bytes);
  }
}

TEST(Load, NamesTheFileThatItRefuses) {
  const TemporaryDirectory directory;
  std::ofstream(directory.File("a.pb.gz"), std::ios::binary) << Compress("no protobuf at all");
  const auto profile = LoadFile(directory.File("a.pb.gz"));
  ASSERT_FALSE(profile.ok());
  EXPECT_NE(profile.status().message().find("a.pb.gz: not a pprof profile"), std::string::npos);
}

TEST(WireCheck, RefusesWhatWouldUnfoldToTooMuch) {
  // Two bytes each: empty samples; and packed location ids of one byte each.
  std::string samples;
  for (uint64_t i = 0; i <= kMaximumMessages; ++i) samples += std::string("\x12\x00", 2);
  EXPECT_TRUE(absl::IsResourceExhausted(CheckWire(samples)));

  Profile profile;
  Sample* sample = profile.add_sample();
  for (uint64_t i = 0; i <= kMaximumNumbers; ++i) sample->add_location_id(1);
  EXPECT_TRUE(absl::IsResourceExhausted(CheckWire(profile.SerializeAsString())));
}

TEST(Validate, RefusesWhatDoesNotHangTogether) {
  ASSERT_TRUE(Validate(Symbolized()).ok());
  using Damage = void (*)(Profile*);
  const Damage damages[] = {
      [](Profile* p) { p->clear_string_table(); },
      [](Profile* p) { p->set_string_table(0, "x"); },
      [](Profile* p) { p->clear_sample_type(); },
      [](Profile* p) { p->mutable_sample_type(0)->set_type(99); },
      [](Profile* p) { p->mutable_sample_type(0)->set_unit(-1); },
      [](Profile* p) { p->mutable_period_type()->set_type(99); },
      [](Profile* p) { p->add_comment(99); },
      [](Profile* p) { p->set_default_sample_type(-5); },
      [](Profile* p) { p->mutable_mapping(0)->set_id(0); },
      [](Profile* p) { *p->add_mapping() = p->mapping(0); },
      [](Profile* p) { p->mutable_mapping(0)->set_filename(99); },
      [](Profile* p) { p->mutable_function(0)->set_name(99); },
      [](Profile* p) { p->mutable_function(0)->set_id(4); },
      [](Profile* p) { p->mutable_location(0)->set_id(2); },
      [](Profile* p) { p->mutable_location(0)->set_mapping_id(9); },
      [](Profile* p) { p->mutable_location(0)->mutable_line(0)->set_function_id(0); },
      [](Profile* p) { p->mutable_sample(0)->add_value(1); },
      [](Profile* p) { p->mutable_sample(0)->add_location_id(77); },
      [](Profile* p) { p->mutable_sample(0)->mutable_label(0)->set_key(99); },
  };
  for (size_t i = 0; i < std::size(damages); ++i) {
    Profile profile = Symbolized();
    damages[i](&profile);
    EXPECT_TRUE(absl::IsDataLoss(Validate(profile))) << "damage " << i;
  }
}

TEST(Load, SurvivesFlippedBitsAndCuts) {
  const std::string good = Symbolized().SerializeAsString();
  std::mt19937 random(4);
  for (int round = 0; round < 20'000; ++round) {
    std::string bad = good;
    for (uint32_t flips = random() % 4; flips > 0; --flips) {
      const size_t at = random() % bad.size();
      bad[at] = static_cast<char>(bad[at] ^ 1 << random() % 8);
    }
    if (round % 3 == 0) bad.resize(random() % bad.size());
    const auto profile = Parse(bad);
    if (!profile.ok()) continue;
    StringSink sink;
    EXPECT_TRUE(WriteFolded(*profile, 0, &sink).ok());
    EXPECT_TRUE(WriteJson(*profile, nullptr, &sink).ok());
  }
}

// One long name, called by a million stacks.
TEST(Text, OfAHostileProfileIsRefused) {
  Profile profile = Symbolized();
  profile.set_string_table(3, std::string(1 << 20, 'n'));
  Sample* sample = profile.mutable_sample(0);
  for (int i = 0; i < 1000; ++i) sample->add_location_id(1);
  StringSink sink;
  EXPECT_TRUE(absl::IsResourceExhausted(WriteFolded(profile, 0, &sink)));
  EXPECT_TRUE(absl::IsResourceExhausted(WriteJson(profile, nullptr, &sink)));
}

TEST(NameFor, IsAPlainFileNameWhateverTheBoxSays) {
  box::Header header = {};
  strcpy(header.program, "../../etc/pass wd");
  header.pid = 7;
  header.start_utc = BoxBuilder::kStart;
  EXPECT_EQ(NameFor(header, target::Life::kDead, kFormats[0]),
            "_.._.._etc_pass_wd.7.1700000000.recovered.pb.gz");
  strcpy(header.program, "checkout");
  EXPECT_TRUE(NameFor(header, target::Life::kAlive, kFormats[2])
                  .starts_with("checkout.7.1700000000.snapshot-"));
}

TEST(Export, OffersEveryFormatOfABox) {
  const TemporaryDirectory directory;
  BoxBuilder box(directory.File("a.box"));
  box.FillPlausibly();
  box.Publish();
  const auto file = target::BoxFile::Load(directory.File("a.box"));
  ASSERT_TRUE(file.ok());
  for (const Format& format : kFormats) {
    StringSink sink;
    const absl::Status status =
        ExportBox(*file, target::Life::kDead, format.id, "", nullptr, &sink);
    EXPECT_TRUE(status.ok()) << format.name << ": " << status;
    EXPECT_GT(sink.text.size(), 100u) << format.name;
  }
  StringSink sink;
  EXPECT_TRUE(absl::IsInvalidArgument(
      ExportBox(*file, target::Life::kDead, Format::kFolded, "in_use", nullptr, &sink)));
}

}  // namespace
}  // namespace heapflare::profile
