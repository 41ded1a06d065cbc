// Keeps the recorder's thread under the service's user, and tells when the service has ended.
//
// setuid and its like change one thread in the kernel; libc makes the change in all threads that it
// knows, and ours is not one. A service that gave up root must not keep a thread that has it: so
// ours compares itself with the service's threads at every look, and follows.
#pragma once

#include <cstdint>
#include <string_view>

namespace heapflare::recorder {

struct Credentials {
  static constexpr int kMaxGroups = 64;
  uint32_t user[3];   // real, effective, saved
  uint32_t group[3];  // the same
  uint32_t groups[kMaxGroups];
  int group_count;
  uint64_t inheritable;  // capability sets
  uint64_t permitted;
  uint64_t effective;

  bool operator==(const Credentials&) const = default;
};

// Reads them out of the text of /proc/PID/task/TID/status. False if a field is missing or
// malformed.
bool ParseCredentials(std::string_view status, Credentials* credentials);

// Makes the calling thread's credentials those of another thread of the process, if they differ.
// Returns true if something changed; then `user` is the effective user id now.
bool FollowCredentials(uint32_t* user);

// Whether all threads but the calling one have ended. (Without libc's knowledge, by the system call:
// else libc would have ended the process with the last one.) Then `exit_code` is that of the first.
bool ServiceHasEnded(int* exit_code);

}  // namespace heapflare::recorder
