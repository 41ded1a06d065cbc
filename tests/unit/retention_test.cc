#include "lib/recorder/retention.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace heapflare::recorder {
namespace {

// The numbers of the dumps that are left after one with each of `live` was written.
std::set<uint32_t> Left(std::initializer_list<uint64_t> live, uint32_t keep) {
  const auto retention = std::make_unique<Retention>();
  std::set<uint32_t> left;
  uint32_t number = 0;
  for (const uint64_t bytes : live) {
    left.insert(++number);
    Retention::Kept victim = {};
    if (retention->Add({number, bytes, "signal"}, keep, &victim)) left.erase(victim.number);
  }
  return left;
}

TEST(Retention, KeepsTheLatestAndTheLargest) {
  EXPECT_EQ(Left({1, 2, 3, 4}, 3), (std::set<uint32_t>{2, 3, 4}));
  EXPECT_EQ(Left({9, 2, 3, 4}, 3), (std::set<uint32_t>{1, 3, 4}));
  EXPECT_EQ(Left({1, 9, 3, 4, 5}, 2), (std::set<uint32_t>{2, 5}));
}

TEST(Retention, KeepsBothEvenWhereOneIsAskedFor) {
  EXPECT_EQ(Left({9, 1, 2}, 1), (std::set<uint32_t>{1, 3}));
  EXPECT_EQ(Left({1, 2, 9}, 1), (std::set<uint32_t>{3}));
}

}  // namespace
}  // namespace heapflare::recorder
