// Copies memory of this process, in large pieces, without ever faulting: what other threads unmap,
// protect or truncate meanwhile is passed over and counted.
//
// process_vm_readv on oneself; where a page is protected against reading, or seccomp forbids that
// call, /proc/self/mem, which disregards protection. Raw system calls, no allocation: the buffer is
// the caller's. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heapflare::reach {

class MemoryReader {
 public:
  MemoryReader() = default;
  ~MemoryReader() { Close(); }
  MemoryReader(const MemoryReader&) = delete;
  MemoryReader& operator=(const MemoryReader&) = delete;

  // Opens what is needed: in the process whose memory is read (a forked child: its own copy; a
  // descriptor of /proc/self/mem stays with the memory that it was opened for).
  void Open();
  void Close();

  // Copies [address, address + bytes) to `to`; 0 where a page cannot be read, which is counted.
  // `protected_page`: /proc/self/mem at once. Returns false if nothing of it could be read.
  bool Read(uint64_t address, void* to, size_t bytes, bool protected_page = false);

  uint64_t bytes_unread() const { return bytes_unread_; }

 private:
  long ReadSome(uint64_t address, void* to, size_t bytes, bool protected_page);

  int process_ = 0;
  int memory_fd_ = -1;
  bool no_vm_read_ = false;
  uint64_t bytes_unread_ = 0;
};

}  // namespace heapflare::reach
