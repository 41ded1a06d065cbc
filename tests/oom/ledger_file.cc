#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "workload.h"

namespace workload {

Lane* OpenLedger(const std::string& path, uint32_t lanes) {
  const size_t bytes = kLanesStart + lanes * sizeof(Lane);
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  void* memory = MAP_FAILED;
  if (descriptor >= 0 && ftruncate(descriptor, static_cast<off_t>(bytes)) == 0) {
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  }
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), std::strerror(errno));
    return nullptr;
  }
  close(descriptor);
  auto* header = new (memory) Header{};
  header->lanes = lanes;
  header->sites = kSites;
  header->sizes = kSizes;
  header->lane_bytes = sizeof(Lane);
  for (uint32_t i = 0; i < kSites; ++i) {
    std::snprintf(header->site_names[i], sizeof(header->site_names[i]), "%s", kSiteNames[i]);
  }
  std::copy(std::begin(kBlockSizes), std::end(kBlockSizes), header->block_sizes);
  auto* first = reinterpret_cast<Lane*>(static_cast<char*>(memory) + kLanesStart);
  for (uint32_t i = 0; i < lanes; ++i) new (first + i) Lane{};
  header->magic = kLedgerMagic;  // last: now it can be read
  return first;
}

}  // namespace workload
