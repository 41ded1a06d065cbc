// A file with one number in it that is read again and again: on a descriptor that stays open,
// instead of open, read and close (under 2 µs, all checks included, instead of 6).
//
// The descriptor lives in a service that may close every number it sees and open its own files
// under it (a daemon, a server before exec, a shell). So:
//   - each read makes sure that the descriptor still is the file it was (device and inode), both
//     before it is read, since reading a foreign device may take something out of it, and after, so
//     that no foreign content is believed. A file of the service may come and go in between, and
//     another thread may then keep our file under the same number again: so what is read counts
//     only if nothing was kept meanwhile;
//   - a number that turned out to be somebody else's is forgotten, never closed;
//   - the descriptor is close-on-exec and lies high, where a service expects nothing, but below
//     kTableSize: the kernel's descriptor table grows to the highest number, to 8 MiB for number
//     1,048,575, charged to the very cgroup that is watched.
//
// Thread-safe and async-signal-safe; nothing waits: who finds the slot busy does without. After
// fork a slot that was busy stays so in the child until Drop.
#pragma once

#include <atomic>
#include <cstdint>

namespace heapflare::cgroup {

class KeptFile {
 public:
  static constexpr int kTableSize = 1024;

  // The number, by the kept descriptor. 0, negative errno, -EBADF if there is none that is ours.
  int Read(uint64_t* value);
  // Keeps a duplicate of `fd`, which stays the caller's, in place of the one kept so far. May have
  // no effect: no free high number, or another thread is at it.
  void Keep(int fd);
  // Closes the kept descriptor if it is still ours. No other thread may use this object meanwhile.
  void Drop();

 private:
  static constexpr uint64_t kNothingKept = 0xffffffff;  // generation 0

  bool IsOurs(int fd) const;
  void CloseIfOurs(int fd);

  std::atomic<uint64_t> device_{0};
  std::atomic<uint64_t> inode_{0};
  // The kept descriptor, -1 for none, and how often something was kept: in one word, so that who
  // has found a descriptor gone cannot clear away one that was kept since under the same number.
  std::atomic<uint64_t> state_{kNothingKept};
  std::atomic<bool> busy_{false};
};

}  // namespace heapflare::cgroup
