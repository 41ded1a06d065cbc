#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "lib/cgroup/lines.h"

namespace heapflare::cgroup {
namespace {

// Through a pipe, so that reads are short as well.
std::vector<std::string> LinesOf(const std::string& content, size_t capacity, size_t piece) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  std::thread writer([&] {
    for (size_t at = 0; at < content.size(); at += piece) {
      const std::string part = content.substr(at, piece);
      EXPECT_EQ(write(ends[1], part.data(), part.size()), static_cast<ssize_t>(part.size()));
    }
    close(ends[1]);
  });
  std::vector<char> buffer(capacity);
  std::vector<std::string> all;
  {
    Lines lines(ends[0], buffer.data(), buffer.size());
    for (std::string_view line; lines.Next(&line);) all.emplace_back(line);
    EXPECT_EQ(lines.error(), 0);
  }
  writer.join();
  return all;
}

TEST(CgroupLines, ReturnsEveryLineThatFitsAndNoPieceOfALongerOne) {
  const std::string fits(15, 'f');
  const std::string full(16, 'x');  // without room for its newline
  const std::string huge = std::string(1000, 'y') + " memory";
  const std::string content =
      "a\n\n" + fits + "\n" + full + "\nb\n" + huge + "\n" + huge + "\nc\n" + huge;
  for (const size_t piece : {1, 3, 16, 17, 5000}) {
    EXPECT_EQ(LinesOf(content, 16, piece), (std::vector<std::string>{"a", "", fits, "b", "c"}))
        << piece;
  }
}

TEST(CgroupLines, ReturnsALastLineWithoutNewline) {
  EXPECT_EQ(LinesOf("a\nmax", 16, 2), (std::vector<std::string>{"a", "max"}));
  EXPECT_EQ(LinesOf("", 16, 1), std::vector<std::string>{});
}

TEST(CgroupLines, EndsInAnEndlessFile) {
  char buffer[4096];
  Lines lines(open("/dev/zero", O_RDONLY), buffer, sizeof(buffer));
  std::string_view line;
  EXPECT_FALSE(lines.Next(&line));
}

TEST(CgroupLines, SaysWhyThereAreNone) {
  char buffer[16];
  std::string_view line;
  Lines closed(-ENOENT, buffer, sizeof(buffer));
  EXPECT_FALSE(closed.Next(&line));
  EXPECT_EQ(closed.error(), -ENOENT);
  Lines directory(open("/", O_RDONLY), buffer, sizeof(buffer));
  EXPECT_FALSE(directory.Next(&line));
  EXPECT_EQ(directory.error(), -EISDIR);
}

}  // namespace
}  // namespace heapflare::cgroup
