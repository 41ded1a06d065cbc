// Copies memory of this process, in large pieces, without ever faulting: what other threads unmap,
// protect or truncate meanwhile is passed over and counted.
//
// By writing it into a file in memory (memfd) that is mapped here: the kernel reads as the process
// would, and stops where it could not. Not by process_vm_readv: that pins pages, and to pin a page
// that is shared since a fork the kernel copies it (5.19 and later), so that a copy of the process
// that is read becomes as large as the process. Where a page is protected against reading, or there
// are no such files, by /proc/self/mem, which disregards protection and is slower.
//
// Raw system calls, no allocation but the mapping. Not thread-safe.
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
  // descriptor of /proc/self/mem stays with the memory that it was opened for). MemoryMap knows the
  // mapping as our own.
  void Open();
  void Close();

  // Copies [address, address + bytes) to `to`; 0 where a page cannot be read, which is counted.
  // `protected_page`: /proc/self/mem at once. Returns false if nothing of it could be read.
  bool Read(uint64_t address, void* to, size_t bytes, bool protected_page = false);

  uint64_t bytes_unread() const { return bytes_unread_; }

 private:
  long ReadSome(uint64_t address, void* to, size_t bytes, bool protected_page);
  void OpenWindow();

  int memory_fd_ = -1;
  int window_fd_ = -1;
  std::byte* window_ = nullptr;
  uint64_t bytes_unread_ = 0;
};

}  // namespace heapflare::reach
