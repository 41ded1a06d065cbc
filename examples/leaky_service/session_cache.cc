#include "session_cache.h"

#include <random>
#include <utility>

namespace storefront {
namespace {

std::string NewToken() {
  thread_local std::mt19937_64 random(std::random_device{}());
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string token(32, '0');
  for (size_t i = 0; i < token.size(); i += 16) {
    uint64_t bits = random();
    for (size_t j = i; j < i + 16; ++j, bits >>= 4) token[j] = kDigits[bits & 15];
  }
  return token;
}

}  // namespace

std::string SessionCache::Insert(std::string_view user, std::string_view basket) {
  std::string token = NewToken();
  Session session = {
      .user = std::string(user),
      .basket = std::string(basket),
      .permissions = {"read:the-whole-catalog", "write:the-own-basket"},
  };
  Shard& shard = ShardOf(token);
  std::lock_guard lock(shard.mutex);
  shard.sessions.insert_or_assign(token, std::move(session));  // and nothing ever erases
  return token;
}

size_t SessionCache::size() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    sum += shard.sessions.size();
  }
  return sum;
}

}  // namespace storefront
