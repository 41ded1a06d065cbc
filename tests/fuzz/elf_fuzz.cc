// lib/doctor/elf_file: an ELF file on disk; lib/recorder/elf_image: one that is mapped here.
#include <memory>

#include "lib/doctor/elf_file.h"
#include "lib/recorder/elf_image.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

void OnDisk(std::string_view bytes) {
  static MemoryFile file;
  file.Write(bytes);
  const auto elf = doctor::ReadElf(file.path());
  if (!elf.ok()) {
    Require(elf.status().message().find(file.path()) == 0, "an error names the file");
    return;
  }
  Require(elf->bits == 32 || elf->bits == 64, "a class that is known");
  Require(elf->interpreter.size() < 4096, "a path of a length that can be");
  doctor::MachineName(elf->machine);
  const auto quick = doctor::ReadElf(file.path(), 0);
  Require(quick.ok() && (elf->defines_malloc || !quick->defines_malloc),
          "whoever looks at less does not see more");
}

// The recorder reads what is mapped where the kernel says that a file is; it may be anything.
void InMemory(std::string_view bytes) {
  constexpr size_t kPage = 4096;
  const size_t size = (bytes.size() + kPage) / kPage * kPage;
  const std::unique_ptr<char, decltype(&free)> image(static_cast<char*>(aligned_alloc(kPage, size)),
                                                     &free);
  memset(image.get(), 0, size);
  memcpy(image.get(), bytes.data(), bytes.size());
  recorder::ElfImage elf = {};
  if (!recorder::ReadElfImage(reinterpret_cast<uint64_t>(image.get()), &elf)) return;
  Require(elf.header_count >= 0 && elf.header_count <= recorder::ElfImage::kMaxHeaders,
          "no more headers than there is room for");
  const auto build_id = std::make_unique<uint8_t[]>(20);
  uint64_t address = 0;
  Require(recorder::ReadBuildId(elf, build_id.get(), 20, &address) <= 20, "a build id that fits");
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  OnDisk(bytes);
  InMemory(bytes);
}

}  // namespace heapflare::fuzz
