// Who is logged in. Thread-safe.
//
// This is the leak of the example, and of a kind that is common: a cache that was given no limit.
// Every entry can be reached, so a tool that looks for lost pointers finds nothing.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace storefront {

struct Session {
  std::string user;
  std::string basket;
  std::vector<std::string> permissions;
};

class SessionCache {
 public:
  // Returns the token under which the session is found again.
  std::string Insert(std::string_view user, std::string_view basket);

  // Calls visit(session) if there is one.
  template <typename Visitor>
  bool Visit(const std::string& token, Visitor&& visit) {
    Shard& shard = ShardOf(token);
    std::lock_guard lock(shard.mutex);
    const auto found = shard.sessions.find(token);
    if (found == shard.sessions.end()) return false;
    visit(found->second);
    return true;
  }

  size_t size() const;

 private:
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<std::string, Session> sessions;
  };

  Shard& ShardOf(const std::string& token) {
    return shards_[std::hash<std::string>()(token) % shards_.size()];
  }

  std::array<Shard, 8> shards_;
};

}  // namespace storefront
