#include "lib/recorder/settings.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

namespace heapflare::recorder {
namespace {

std::vector<std::string> lines;
void Collect(std::string_view line) { lines.emplace_back(line); }

Settings Parse(std::string_view environment) {
  lines.clear();
  Settings settings;
  ParseSettings(environment, &settings, Collect);
  return settings;
}

TEST(Settings, AreTheDefaultsWithoutVariables) {
  const Settings settings = Parse({"PATH=/bin\0HOME=/\0", 17});
  EXPECT_EQ(settings.sample_interval, 512u << 10);
  ASSERT_EQ(settings.rung_count, 3u);
  EXPECT_EQ(settings.rungs[0].percent, 8000u);
  EXPECT_EQ(settings.box_bytes, 16u << 20);
  EXPECT_TRUE(lines.empty());
}

TEST(Settings, TakeEveryVariable) {
  const std::string environment =
      std::string("HEAPFLARE_DIR=/d") + '\0' + "HEAPFLARE_BOX_DIR=/b" + '\0' +
      "HEAPFLARE_SAMPLE_INTERVAL=1" + '\0' + "HEAPFLARE_THRESHOLDS=50%, 1536MiB,92.5%" + '\0' +
      "HEAPFLARE_LIMIT=1GiB" + '\0' + "HEAPFLARE_METRIC=rss" + '\0' + "HEAPFLARE_ETA=30" + '\0' +
      "HEAPFLARE_SIGNAL=RTMIN+3" + '\0' + "HEAPFLARE_DUMP_AT_EXIT=1" + '\0' +
      "HEAPFLARE_PROGRAMS=a,b" + '\0' + "HEAPFLARE_KEEP=3" + '\0' + "HEAPFLARE_BOX_SIZE=4MiB" +
      '\0' + "HEAPFLARE_BOX_MODE=0640" + '\0' + "HEAPFLARE_MAX_STACK=128" + '\0' +
      "HEAPFLARE_VERBOSE=1" + '\0';
  const Settings settings = Parse(environment);
  EXPECT_TRUE(lines.empty()) << lines[0];
  EXPECT_EQ(settings.dump_directory.view(), "/d");
  EXPECT_EQ(settings.box_directory.view(), "/b");
  EXPECT_EQ(settings.sample_interval, 1u);
  ASSERT_EQ(settings.rung_count, 3u);
  EXPECT_EQ(settings.rungs[1].bytes, 1536ull << 20);
  EXPECT_EQ(settings.rungs[2].percent, 9250u);
  EXPECT_EQ(settings.limit, 1ull << 30);
  EXPECT_EQ(settings.metric, Metric::kRss);
  EXPECT_EQ(settings.eta_seconds, 30u);
  EXPECT_EQ(settings.signal, 37);
  EXPECT_TRUE(settings.dump_at_exit);
  EXPECT_EQ(settings.programs.view(), "a,b");
  EXPECT_EQ(settings.keep, 3u);
  EXPECT_EQ(settings.box_bytes, 4u << 20);
  EXPECT_EQ(settings.box_mode, 0640u);
  EXPECT_EQ(settings.max_stack, 128u);
  EXPECT_TRUE(settings.verbose);
}

TEST(Settings, EmptyThresholdsMeanNone) {
  EXPECT_EQ(Parse({"HEAPFLARE_THRESHOLDS=\0", 22}).rung_count, 0u);
}

TEST(Settings, EmptyValuesMeanTheDefault) {
  EXPECT_EQ(Parse({"HEAPFLARE_KEEP=\0", 16}).keep, 10u);
  EXPECT_TRUE(lines.empty());
}

TEST(Settings, SayWhatIsWrongInOneLineAndUseTheDefault) {
  struct Wrong {
    const char* entry;
    const char* line;
  };
  const Wrong wrongs[] = {
      {"HEAPFLARE_THRESHOLDS=80%,85%%",
       "HEAPFLARE_THRESHOLDS: '85%%' at item 2: not a percentage or a size; using 80%,90%,95%"},
      {"HEAPFLARE_SAMPLE_INTERVAL=often",
       "HEAPFLARE_SAMPLE_INTERVAL: 'often': not a size (as 524288, 512KiB, 64MB, 1.5GiB); using "
       "512KiB"},
      {"HEAPFLARE_DIR=here",
       "HEAPFLARE_DIR: 'here': not an absolute path; using /tmp/heapflare-UID"},
      {"HEAPFLARE_KEEP=0", "HEAPFLARE_KEEP: '0': not a number from 1 to 1000; using 10"},
      {"HEAPFLARE_SIGNAL=KILL",
       "HEAPFLARE_SIGNAL: 'KILL': not a signal such as USR2 or RTMIN+3; using none"},
      {"HEAPFLARE_METRIC=swap",
       "HEAPFLARE_METRIC: 'swap': none of working_set, usage, rss; using working_set"},
      {"HEAPFLARE_BOX_MODE=0660",
       "HEAPFLARE_BOX_MODE: '0660': lets others write, who could end the program by that; "
       "using 0600"},
      {"HEAPFLARE_BOX_MODE=rw",
       "HEAPFLARE_BOX_MODE: 'rw': not a file mode such as 0600 or 0640; "
       "using 0600"},
      {"HEAPFLARE_BOX_SIZE=1", "HEAPFLARE_BOX_SIZE: '1': not between 1 MiB and 8 GiB; using 16MiB"},
      {"HEAPFLARE_VERBOSE=yes", "HEAPFLARE_VERBOSE: 'yes': neither 0 nor 1; using 0"},
      {"HEAPFLARE_TRESHOLDS=1", "HEAPFLARE_TRESHOLDS: no such variable; ignored"},
  };
  for (const Wrong& wrong : wrongs) {
    const Settings settings = Parse(wrong.entry);
    ASSERT_EQ(lines.size(), 1u) << wrong.entry;
    EXPECT_EQ(lines[0], wrong.line);
    EXPECT_EQ(settings.rung_count, 3u);
    EXPECT_EQ(settings.keep, 10u);
    EXPECT_EQ(settings.sample_interval, 512u << 10);
  }
}

TEST(NamesProgram, MatchesWholeNamesOnly) {
  EXPECT_TRUE(NamesProgram("", "any"));
  EXPECT_TRUE(NamesProgram("a, server ,b", "server"));
  EXPECT_FALSE(NamesProgram("a,server2", "server"));
}

}  // namespace
}  // namespace heapflare::recorder
