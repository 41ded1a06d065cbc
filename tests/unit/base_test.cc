#include <gtest/gtest.h>

#include <cmath>

#include "lib/base/elementary.h"
#include "lib/base/parse.h"
#include "lib/base/suppression.h"
#include "lib/base/text.h"

namespace heapflare::base {
namespace {

TEST(ParseSize, KnowsBinaryAndDecimalUnits) {
  EXPECT_EQ(ParseSize("524288"), 524288u);
  EXPECT_EQ(ParseSize("512KiB"), 512u << 10);
  EXPECT_EQ(ParseSize("512k"), 512u << 10);
  EXPECT_EQ(ParseSize("64MB"), 64'000'000u);
  EXPECT_EQ(ParseSize("1.5GiB"), 3ull << 29);
  EXPECT_EQ(ParseSize("2 Mi"), 2u << 20);
  EXPECT_EQ(ParseSize("0"), 0u);
  EXPECT_EQ(ParseSize("18446744073709551615"), UINT64_MAX);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "KiB", "-1", "1.", ".5", "1 2", "12XB", "1KiBs", "0x10", "1e9",
                           "18446744073709551616", "99999999999TiB", "85%%"}) {
    EXPECT_FALSE(ParseSize(text)) << text;
  }
}

TEST(TakeUntil, GivesEveryPartOnce) {
  std::string_view rest = "a,,b";
  std::string_view part;
  std::string joined;
  while (TakeUntil(',', &rest, &part)) joined.append("[").append(part).append("]");
  EXPECT_EQ(joined, "[a][][b]");
}

TEST(Text, CutsWhatDoesNotFitAndSaysSo) {
  Text<6> text("abc");
  EXPECT_FALSE(text.truncated());
  text.Add("defg");
  EXPECT_STREQ(text.c_str(), "abcde");
  EXPECT_TRUE(text.truncated());
}

TEST(Text, WritesNumbersAndSizesAsPeopleReadThem) {
  Text<200> text;
  text.AddNumber(7, 4).Add(' ').AddSigned(-12).Add(' ').AddHex(0xab, 4).Add(' ');
  EXPECT_STREQ(text.c_str(), "0007 -12 00ab ");
  const auto size = [](uint64_t bytes) { return std::string(Text<32>().AddSize(bytes).view()); };
  EXPECT_EQ(size(0), "0 B");
  EXPECT_EQ(size(1023), "1023 B");
  EXPECT_EQ(size(1536), "1.5 KiB");
  EXPECT_EQ(size(256 << 20), "256 MiB");
  EXPECT_EQ(size((1 << 20) - 1), "1 MiB");
  EXPECT_EQ(size(UINT64_MAX), "16 EiB");
}

TEST(Elementary, AgreesWithTheMathLibrary) {
  for (double x = 0x1p-53; x <= 1e6; x *= 1.37) {
    EXPECT_NEAR(Log(x) / (std::log(x) == 0 ? 1 : std::log(x)), 1, 1e-13) << x;
  }
  for (double x = 1e-12; x < 100; x *= 1.21) {
    EXPECT_NEAR(OneMinusExp(x) / -std::expm1(-x), 1, 1e-12) << x;
  }
  for (double x = 1e-300; x < 1e300; x *= 1.37) {
    EXPECT_NEAR(SquareRoot(x) / std::sqrt(x), 1, 1e-15) << x;
  }
  for (const double x : {0.0, -1.0, HUGE_VAL, std::nan("")}) EXPECT_EQ(SquareRoot(x), 0) << x;
}

TEST(Suppression, MatchesAnywhereBetweenItsAnchors) {
  const struct {
    const char* pattern;
    const char* name;
    bool matches;
  } cases[] = {
      {"Insert", "Cache::Insert(int)", true},
      {"^Insert", "Cache::Insert(int)", false},
      {"^Cache", "Cache::Insert(int)", true},
      {"Insert$", "Cache::Insert(int)", false},
      {"(int)$", "Cache::Insert(int)", true},
      {"C*::*t(", "Cache::Insert(int)", true},
      {"^Cache$", "Cache", true},
      {"^Cache$", "Caches", false},
      {"*", "", true},
      {"", "Cache", false},
      {"^a*a$", "a", false},
      {"^a*a$", "aba", true},
      {"a*b*c", "xaxbxcx", true},
      {"a*c*b", "xaxbxcx", false},
      {"^", "anything", true},
      {"lib.so$", "/usr/lib.so", true},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(MatchesPattern(one.pattern, one.name), one.matches)
        << one.pattern << " in " << one.name;
  }
}

TEST(Suppression, IsALineOfItsKind) {
  std::string_view pattern;
  EXPECT_TRUE(ParseSuppression("  leak: Cache::Insert \r", &pattern));
  EXPECT_EQ(pattern, "Cache::Insert");
  for (const char* line : {"", "# leak:x", "leak:", "leak:  ", "race:x", "leaks:x"}) {
    EXPECT_FALSE(ParseSuppression(line, &pattern)) << line;
  }
}

}  // namespace
}  // namespace heapflare::base
