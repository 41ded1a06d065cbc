// What the doctor says of programs, places and processes.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "lib/doctor/allocator.h"
#include "lib/doctor/elf_file.h"
#include "lib/doctor/environment.h"
#include "lib/doctor/finding.h"
#include "lib/doctor/process.h"
#include "lib/doctor/program.h"
#include "lib/target/process.h"
#include "tests/support/box_builder.h"
#include "tests/support/elf_builder.h"

namespace heapflare::doctor {
namespace {

using test::ElfShape;
using test::TemporaryDirectory;
using test::WriteElf;

constexpr const char* kGlibc = "/lib64/ld-linux-x86-64.so.2";

std::string Block(std::initializer_list<std::string> entries) {
  std::string block;
  for (const std::string& entry : entries) (block += entry).push_back('\0');
  return block;
}

// The first failure that preloading into a program of this shape would meet; empty if there is
// none.
std::string FailureOf(const ElfShape& shape) {
  const TemporaryDirectory directory;
  WriteElf(directory.File("program"), shape);
  WriteElf(directory.File("libheapflare.so"), {});
  const Findings findings = CheckProgram(directory.File("program"),
                                         directory.File("libheapflare.so"), "", Depth::kThorough);
  const Finding* failure = FirstFailure(findings);
  return failure == nullptr ? "" : failure->detail + " → " + failure->remedy;
}

TEST(Program, ThatIsDynamicCanBePreloaded) { EXPECT_EQ(FailureOf({.interpreter = kGlibc}), ""); }

TEST(Program, ThatIsStaticCannot) {
  EXPECT_NE(FailureOf({}).find("linked statically"), std::string::npos);
}

TEST(Program, ThatIsLinkedWithUsNeedNotBe) {
  EXPECT_EQ(FailureOf({.symbol = "heapflare_active"}), "");
}

TEST(Program, OfMuslCannot) {
  EXPECT_NE(FailureOf({.interpreter = "/lib/ld-musl-x86_64.so.1"}).find("musl"), std::string::npos);
}

TEST(Program, OfAnotherMachineCannot) {
  EXPECT_NE(FailureOf({.machine = EM_AARCH64, .interpreter = "/lib/ld-linux-aarch64.so.1"})
                .find("is for aarch64"),
            std::string::npos);
}

TEST(Program, WithAMallocOfItsOwnCannot) {
  for (const uint32_t table : {SHT_SYMTAB, SHT_DYNSYM}) {
    const std::string failure =
        FailureOf({.interpreter = kGlibc, .symbol = "malloc", .table = table});
    EXPECT_NE(failure.find("malloc of its own"), std::string::npos);
    EXPECT_NE(failure.find("heapflare::wrap"), std::string::npos) << "and says what to do";
  }
}

TEST(Program, OfAScriptIsItsInterpreter) {
  const TemporaryDirectory directory;
  WriteElf(directory.File("static"), {});
  std::ofstream(directory.File("script")) << "#! " << directory.File("static") << " -x\n";
  std::ofstream(directory.File("by-env")) << "#!/usr/bin/env static\n";
  std::ofstream(directory.File("lost")) << "#!/no/such/interpreter\n";
  for (const char* name : {"script", "by-env", "lost"}) {
    chmod(directory.File(name).c_str(), 0755);
    const Findings findings =
        CheckProgram(directory.File(name), "", directory.path(), Depth::kQuick);
    EXPECT_NE(FirstFailure(findings), nullptr) << name;
  }
}

TEST(Program, ScriptThatIsItsOwnInterpreterIsNotFollowedForever) {
  const TemporaryDirectory directory;
  std::ofstream(directory.File("loop")) << "#!" << directory.File("loop") << "\n";
  chmod(directory.File("loop").c_str(), 0755);
  CheckProgram(directory.File("loop"), "", "", Depth::kQuick);
}

TEST(Program, WithSetuidCannot) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to give a file away";
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) GTEST_SKIP() << "no_new_privs";
  const TemporaryDirectory directory;
  const std::string path = directory.File("program");
  WriteElf(path, {.interpreter = kGlibc});
  ASSERT_EQ(chown(path.c_str(), 1, 0), 0);
  ASSERT_EQ(chmod(path.c_str(), 04755), 0);
  const Findings findings = CheckProgram(path, "", "", Depth::kQuick);
  ASSERT_NE(FirstFailure(findings), nullptr);
  EXPECT_NE(FirstFailure(findings)->detail.find("setuid"), std::string::npos);
}

TEST(FindProgram, DoesAsShellsDo) {
  const TemporaryDirectory directory;
  std::ofstream(directory.File("data")) << "x";
  EXPECT_TRUE(FindProgram("true", "/nowhere:/usr/bin:/bin").ok());
  EXPECT_TRUE(absl::IsNotFound(FindProgram("true", "/nowhere").status()));
  EXPECT_TRUE(absl::IsNotFound(FindProgram("", "/usr/bin").status()));
  EXPECT_TRUE(absl::IsNotFound(FindProgram("/no/such/program", "").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(FindProgram(directory.path(), "").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(FindProgram(directory.File("data"), "").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(FindProgram("data", directory.path()).status()));
}

TEST(FindAllocator, NamesWhatItCannotFind) {
  EXPECT_TRUE(FindAllocator("/proc/self/exe").ok());
  EXPECT_NE(FindAllocator("/no/such.so").status().message().find("/no/such.so"), std::string::npos);
  EXPECT_NE(FindAllocator("tlsf").status().message().find("neither jemalloc"), std::string::npos);
}

TEST(Elf, DamagedAnywhereIsReadOrRefused) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("program");
  WriteElf(path, {.interpreter = kGlibc, .symbol = "malloc"});
  std::ifstream file(path, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(file)), {});
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    bad[random() % bad.size()] = static_cast<char>(random());
    if (round % 4 == 0) bad.resize(random() % bad.size());
    std::ofstream(path, std::ios::binary) << bad;
    const auto elf = ReadElf(path);
    if (!elf.ok()) {
      EXPECT_FALSE(elf.status().message().empty());
    }
  }
}

TEST(Settings, AreJudgedAsTheRecorderDoes) {
  EXPECT_TRUE(SettingProblems(Block({"HEAPFLARE_SAMPLE_INTERVAL=64KiB", "PATH=/bin"})).empty());
  const auto problems = SettingProblems(Block({"HEAPFLARE_THRESHOLDS=80%,x", "HEAPFLARE_KEEP=no"}));
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_NE(problems[0].find("HEAPFLARE_THRESHOLDS"), std::string::npos);
}

TEST(Directories, AreRefusedAsTheRecorderDoes) {
  const TemporaryDirectory directory;
  mkdir(directory.File("good").c_str(), 0700);
  ASSERT_EQ(symlink(directory.File("good").c_str(), directory.File("link").c_str()), 0);
  std::ofstream(directory.File("file")) << "x";
  View view;
  view.uid = geteuid();
  const auto dumps = [&](const std::string& name) {
    const Findings findings =
        CheckDirectories(view, Block({"HEAPFLARE_DIR=" + directory.File(name)}));
    return findings.at(1);
  };
  EXPECT_EQ(dumps("good").level, Level::kOk);
  EXPECT_EQ(dumps("new").level, Level::kOk) << "it will be created";
  EXPECT_EQ(dumps("link").level, Level::kFail);
  EXPECT_EQ(dumps("file").level, Level::kFail);
  EXPECT_EQ(dumps("new/deeper").level, Level::kOk) << "so will its parent";
  EXPECT_EQ(dumps("file/deeper").level, Level::kFail);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(directory.File("good").c_str(), 12345, 0), 0);
    EXPECT_EQ(dumps("good").level, Level::kFail) << "it belongs to somebody else";
  }
}

TEST(Limit, IsFoundOrTheLackExplained) {
  View view;
  view.uid = geteuid();
  const Findings found = CheckLimit(view, "");
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].what, "limit");
  EXPECT_TRUE(found[0].level == Level::kOk || !found[0].remedy.empty());
  const Findings given = CheckLimit(view, Block({"HEAPFLARE_LIMIT=256MiB"}));
  EXPECT_EQ(given[0].detail, "256 MiB (HEAPFLARE_LIMIT)");
}

TEST(Process, WithoutTheRecorderIsToldHowToGetIt) {
  const Findings findings = CheckProcess(getpid());
  const Finding* failure = FirstFailure(findings);
  ASSERT_NE(failure, nullptr);
  EXPECT_EQ(failure->what, "recorder");
  EXPECT_NE(failure->remedy.find("heapflare run"), std::string::npos);
}

TEST(Process, ThatIsNotThereIsSaidToBeSo) {
  const Findings findings = CheckProcess(0x3fffffff);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].level, Level::kFail);
}

TEST(Process, WithABoxIsDescribed) {
  const TemporaryDirectory directory;
  test::BoxBuilder box(directory.File("self.box"));
  const auto self = target::LookUp(getpid());
  box.header().pid = static_cast<uint32_t>(self->pid_inside);
  box.header().start_ticks = self->start_ticks;
  box.header().pid_namespace = self->pid_namespace;
  box.header().heartbeat_utc = static_cast<uint64_t>(base::UtcNanoseconds());
  box.header().losses.samples = 3;
  box.Publish();
  const std::string text = ToText(CheckProcess(getpid()));
  EXPECT_NE(text.find("linked into the program"), std::string::npos) << text;
  EXPECT_NE(text.find("one sample per 512 KiB"), std::string::npos);
  EXPECT_NE(text.find("3 samples"), std::string::npos);
}

TEST(Findings, AreAlignedLines) {
  EXPECT_EQ(
      ToText({{Level::kOk, "limit", "256 MiB", ""}, {Level::kFail, "boxes", "none", "make one"}}),
      "ok    limit  256 MiB\nFAIL  boxes  none → make one\n");
}

}  // namespace
}  // namespace heapflare::doctor
