// Files of /proc that the recorder reads: maps, status, names of boxes.
#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "lib/base/maps_reader.h"
#include "lib/recorder/credentials.h"
#include "lib/recorder/elf_image.h"
#include "lib/recorder/own_memory.h"

namespace heapflare::recorder {
namespace {

using base::MapsLine;
using base::MapsReader;
using base::OpenOwnMaps;
using base::ParseMapsLine;

TEST(MapsLine, IsTakenApart) {
  MapsLine line = {};
  ASSERT_TRUE(ParseMapsLine(
      "7f0012345000-7f0012346000 r-xp 0002a000 fe:01 1234567                    /opt/my bin/a.so",
      &line));
  EXPECT_EQ(line.start, 0x7f0012345000u);
  EXPECT_EQ(line.limit, 0x7f0012346000u);
  EXPECT_EQ(line.offset, 0x2a000u);
  EXPECT_EQ(line.device, 0xfeull << 32 | 1);
  EXPECT_EQ(line.inode, 1234567u);
  EXPECT_TRUE(line.executable);
  EXPECT_EQ(line.path, "/opt/my bin/a.so");
}

TEST(MapsLine, KnowsDeletedFilesAndMemoryWithoutAFile) {
  MapsLine line = {};
  ASSERT_TRUE(ParseMapsLine("1000-2000 rw-p 00000000 00:01 7 /tmp/x (deleted)", &line));
  EXPECT_EQ(line.path, "/tmp/x");
  EXPECT_FALSE(line.executable);
  ASSERT_TRUE(ParseMapsLine("1000-2000 rwxp 00000000 00:00 0 ", &line));
  EXPECT_EQ(line.path, "");
  EXPECT_EQ(line.inode, 0u);
  EXPECT_FALSE(ParseMapsLine("not a line at all", &line));
  EXPECT_FALSE(ParseMapsLine("", &line));
}

TEST(MapsReader, FindsThisFunctionThroughATinyBuffer) {
  char buffer[600];
  MapsReader reader(OpenOwnMaps(), buffer, sizeof(buffer));
  ASSERT_TRUE(reader.ok());
  const auto here = reinterpret_cast<uint64_t>(&ParseMapsLine);
  MapsLine line = {};
  bool found = false;
  const auto next = [&] {
    if (!reader.Next(&line)) return false;
    found |= line.executable && here >= line.start && here < line.limit;
    return true;
  };
  ASSERT_TRUE(next());
  EXPECT_FALSE(reader.complete());
  while (next()) {
  }
  EXPECT_TRUE(found);
  EXPECT_TRUE(reader.complete());
}

// qemu-user passes on most system calls, but not this one.
bool ProcessMemoryCanBeRead() {
  return syscall(SYS_process_vm_readv, getpid(), nullptr, 0, nullptr, 0, 0) == 0;
}

TEST(OwnMemory, IsReadWithoutFaulting) {
  if (!ProcessMemoryCanBeRead()) GTEST_SKIP() << "no process_vm_readv here";
  const int value = 42;
  int copy = 0;
  EXPECT_TRUE(ReadOwnMemory(reinterpret_cast<uint64_t>(&value), &copy, sizeof(copy)));
  EXPECT_EQ(copy, 42);
  EXPECT_FALSE(ReadOwnMemory(16, &copy, sizeof(copy)));
  EXPECT_EQ(ReadablePages(0, 4), 0u);
  const uint64_t page = reinterpret_cast<uint64_t>(&value) / 4096 * 4096;
  EXPECT_GE(ReadablePages(page, 1), 1u);
}

TEST(ElfImage, HasTheBuildIdThatTheLinkerWrote) {
  if (!ProcessMemoryCanBeRead()) GTEST_SKIP() << "no process_vm_readv here";
  // The main program's first byte is mapped where its program headers are.
  const uint64_t headers = getauxval(AT_PHDR);
  std::ifstream maps("/proc/self/maps");
  MapsLine line = {};
  for (std::string text; std::getline(maps, text);) {
    ASSERT_TRUE(ParseMapsLine(text, &line));
    if (headers >= line.start && headers < line.limit) break;
  }
  ElfImage image = {};
  ASSERT_TRUE(ReadElfImage(line.start, &image));
  EXPECT_GT(image.header_count, 4);
  uint8_t build_id[32];
  uint64_t address = 0;
  EXPECT_EQ(ReadBuildId(image, build_id, sizeof(build_id), &address), 20u);
  EXPECT_EQ(memcmp(reinterpret_cast<const void*>(address), build_id, 20), 0);
  EXPECT_FALSE(ReadElfImage(16, &image));
}

TEST(Credentials, AreReadFromTheStatusOfATask) {
  std::ifstream file("/proc/self/status");
  std::stringstream text;
  text << file.rdbuf();
  Credentials credentials = {};
  ASSERT_TRUE(ParseCredentials(text.str(), &credentials));
  EXPECT_EQ(credentials.user[1], geteuid());
  EXPECT_EQ(credentials.group[1], getegid());
  EXPECT_FALSE(ParseCredentials("Uid:\t0\n", &credentials));
  EXPECT_FALSE(ParseCredentials("", &credentials));
}

}  // namespace
}  // namespace heapflare::recorder
