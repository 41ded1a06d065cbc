// What the user points at, how a box is read from a file, and whether its process lives.
#include "lib/target/target.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "lib/target/box_file.h"
#include "lib/target/files.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "tests/support/box_builder.h"

namespace heapflare::target {
namespace {

using test::BoxBuilder;
using test::TemporaryDirectory;

void MarkAsOurs(box::Header* header) {
  const Process self = *LookUp(getpid());
  header->pid = static_cast<uint32_t>(self.pid_inside);
  header->start_ticks = self.start_ticks;
  header->pid_namespace = self.pid_namespace;
}

void WriteText(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

// The variables that say where boxes are.
class TargetTest : public testing::Test {
 protected:
  void SetUp() override {
    setenv("HEAPFLARE_BOX_DIR", directory_.path().c_str(), 1);
    setenv("HEAPFLARE_DIR", directory_.path().c_str(), 1);
  }
  void TearDown() override {
    unsetenv("HEAPFLARE_BOX_DIR");
    unsetenv("HEAPFLARE_DIR");
  }
  // A finished box that was opened at this time.
  std::string MakeBox(const std::string& name, uint64_t opened_utc, uint32_t pid = 1) {
    BoxBuilder box(directory_.File(name));
    box.header().opened_utc = opened_utc;
    box.header().pid = pid;
    box.Publish();
    return directory_.File(name);
  }

  TemporaryDirectory directory_;
};

TEST_F(TargetTest, ReadsABoxAsItWasWritten) {
  const std::string path = directory_.File("a.box");
  BoxBuilder builder(path, 64 << 20);
  builder.FillPlausibly();
  builder.Publish();
  const auto box = BoxFile::Load(path);
  ASSERT_TRUE(box.ok()) << box.status();
  EXPECT_EQ(box->reader().program(), "checkout");
  EXPECT_EQ(box->reader().stack_count(), 51u);
  EXPECT_EQ(box->live_bytes(), box::WholeBytes(box::SumTallies(builder.header()).live_bytes()));
  box::TimelinePoint point = {};
  ASSERT_TRUE(box->LastPoint(&point));
  EXPECT_EQ(point.usage, 30u << 20);
  uint64_t samples = 0;
  box::Sample sample = {};
  for (uint64_t i = 0; i < box->reader().sample_slots(); ++i) {
    samples += box->reader().sample(i, &sample) ? 1 : 0;
  }
  EXPECT_EQ(samples, box::SumTallies(builder.header()).samples_live());
}

TEST_F(TargetTest, ReadsWhatIsThereOfABoxThatIsCutOff) {
  const std::string path = directory_.File("a.box");
  {
    BoxBuilder builder(path);
    builder.FillPlausibly();
    builder.Publish();
  }
  const auto whole = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, whole / 3);
  EXPECT_TRUE(BoxFile::Load(path).ok());
  std::filesystem::resize_file(path, 100);
  const auto cut = BoxFile::Load(path);
  ASSERT_FALSE(cut.ok());
  EXPECT_NE(cut.status().message().find("cut off"), std::string::npos) << cut.status();
}

TEST_F(TargetTest, NamesWhatIsWrongWithAFile) {
  WriteText(directory_.File("x.box"), "this is not a box at all");
  const auto foreign = BoxFile::Load(directory_.File("x.box"));
  ASSERT_FALSE(foreign.ok());
  EXPECT_NE(foreign.status().message().find("x.box: not a heapflare box"), std::string::npos);
  EXPECT_TRUE(absl::IsNotFound(BoxFile::Load(directory_.File("y.box")).status()));
  EXPECT_FALSE(BoxFile::Load(directory_.path()).ok());
}

TEST_F(TargetTest, DoesNotWaitForAPipe) {
  const std::string path = directory_.File("pipe.box");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(BoxFile::Load(path).ok());
  EXPECT_FALSE(Resolve(path).ok());
}

TEST_F(TargetTest, FindsTheNewestBoxOfADirectory) {
  MakeBox("old.box", 1000);
  const std::string newest = MakeBox("new.box", 3000);
  MakeBox("middle.box", 2000);
  WriteText(directory_.File("broken.box"), "?");
  for (const std::string& text : {directory_.path(), std::string()}) {
    const auto target = Resolve(text);
    ASSERT_TRUE(target.ok()) << target.status();
    EXPECT_EQ(target->path, newest);
  }
  const auto boxes = ListBoxes(directory_.path());
  ASSERT_TRUE(boxes.ok());
  ASSERT_EQ(boxes->size(), 4u);
  EXPECT_FALSE(boxes->back().status.ok()) << "what cannot be read comes last";
}

TEST_F(TargetTest, FindsTheBoxOfALivingProcess) {
  const std::string path = directory_.File("self.box");
  BoxBuilder box(path);
  MarkAsOurs(&box.header());
  box.Publish();
  const auto target = Resolve(std::to_string(getpid()));
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->path, path);
  EXPECT_EQ(target->pid, getpid());
}

TEST_F(TargetTest, FindsABoxByItsMappingWhereverItIs) {
  const TemporaryDirectory elsewhere;
  const std::string path = elsewhere.File("self.box");
  BoxBuilder box(path);
  MarkAsOurs(&box.header());
  box.Publish();
  const auto target = FindBoxOf(getpid());
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->path, path);
}

TEST_F(TargetTest, FindsABoxWithoutAName) {
  BoxBuilder box("");
  MarkAsOurs(&box.header());
  box.Publish();
  const auto target = FindBoxOf(getpid());
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_TRUE(BoxFile::Load(target->path).ok());
  // Its descriptor stays open, and must not be found again.
  box.header().magic = 0;
}

TEST_F(TargetTest, TakesNoBoxThatAnEarlierProcessOfThatNumberLeft) {
  const std::string path = directory_.File("self.box");
  BoxBuilder box(path);
  MarkAsOurs(&box.header());
  box.header().start_ticks -= 1;
  box.Publish();
  EXPECT_FALSE(Resolve(std::to_string(getpid())).ok());
}

TEST_F(TargetTest, FindsTheBoxOfADeadProcess) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  const auto number = static_cast<uint32_t>(child);
  MakeBox("one.box", 1000, number);
  const std::string later = MakeBox("two.box", 2000, number);
  const auto target = Resolve(std::to_string(child));
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->path, later);
  EXPECT_EQ(target->pid, 0);
}

TEST_F(TargetTest, TellsProfilesFromBoxes) {
  WriteText(directory_.File("a.pb.gz"), "\x1f\x8b?");
  WriteText(directory_.File("a.pb"), "\x0a\x04");
  WriteText(directory_.File("a.txt"), "text");
  EXPECT_EQ(Resolve(directory_.File("a.pb.gz"))->kind, Kind::kProfile);
  EXPECT_EQ(Resolve(directory_.File("a.pb"))->kind, Kind::kProfile);
  EXPECT_EQ(Resolve(directory_.File("a.txt"))->kind, Kind::kBox) << "reading it then tells why not";
}

TEST(Life, IsToldByBootNamespaceAndStart) {
  const TemporaryDirectory directory;
  BoxBuilder box(directory.File("a.box"));
  box.Publish();
  box::Header header = box.header();
  MarkAsOurs(&header);
  EXPECT_EQ(LifeOf(header), Life::kAlive);

  box::Header other = header;
  other.start_ticks += 1;
  EXPECT_EQ(LifeOf(other), Life::kDead) << "the number was used again";

  other = header;
  other.boot_id[0] = 1;
  EXPECT_EQ(LifeOf(other), Life::kDead) << "the machine was started again";

  other = header;
  other.state = static_cast<uint32_t>(box::State::kClosed);
  EXPECT_EQ(LifeOf(other), Life::kExited);

  other = header;
  other.pid_namespace = 1;
  EXPECT_EQ(LifeOf(other), Life::kAlive) << "not visible, but it gave a sign of life just now";
  other.heartbeat_mono -= std::min<uint64_t>(other.heartbeat_mono, 60'000'000'000);
  EXPECT_EQ(LifeOf(other), Life::kSilent);
}

TEST(Life, OfAZombieIsOver) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t info = {};
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_TRUE(LookUp(child)->zombie);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(LookUp(child).has_value());
}

TEST(NewFile, HasItsNameOnlyWhenItIsComplete) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.pb.gz");
  {
    const auto file = NewFile::Create(path);
    ASSERT_TRUE(file.ok());
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << "given up, it leaves nothing";
}

TEST(NewFile, ReplacesOnlyWhenTold) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.pb.gz");
  const auto make = [&path] { return std::move(*NewFile::Create(path)); };
  EXPECT_EQ(*make().TakeFreeName(".pb.gz"), path);
  EXPECT_EQ(*make().TakeFreeName(".pb.gz"), directory.File("a-2.pb.gz"));
  EXPECT_EQ(*make().TakeFreeName(".pb.gz"), directory.File("a-3.pb.gz"));
  EXPECT_TRUE(make().Replace().ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 3);
}

TEST(ReadWhole, StopsAtTheLimit) {
  const TemporaryDirectory directory;
  WriteText(directory.File("a"), std::string(1000, 'x'));
  EXPECT_EQ(ReadWhole(directory.File("a"), 1000)->size(), 1000u);
  EXPECT_TRUE(absl::IsResourceExhausted(ReadWhole(directory.File("a"), 999).status()));
}

TEST(Variable, IsFoundByItsWholeName) {
  const std::string block("A=1\0AB=2\0B=\0", 12);
  EXPECT_EQ(Variable(block, "A"), "1");
  EXPECT_EQ(Variable(block, "AB"), "2");
  EXPECT_EQ(Variable(block, "B"), "");
  EXPECT_EQ(Variable(block, "C"), "");
}

TEST(Human, ReadsAsPeopleWrite) {
  EXPECT_EQ(HumanTime(1'700'000'000'000'000'000), "2023-11-14 22:13:20");
  EXPECT_EQ(CompactTime(1'700'000'000'000'000'000), "20231114T221320Z");
  EXPECT_EQ(HumanDuration(59), "59 s");
  EXPECT_EQ(HumanDuration(3 * 3600 + 12 * 60), "3 h 12 min");
  EXPECT_EQ(Printable("a\nb\x7f"), "a\\x0ab\\x7f");
  EXPECT_EQ(Printable("\u00fcber \u20ac \xf9t\xe2\x82"), "\u00fcber \u20ac \\xf9t\\xe2\\x82");
}

}  // namespace
}  // namespace heapflare::target
