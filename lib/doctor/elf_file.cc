#include "lib/doctor/elf_file.h"

#include <gelf.h>
#include <libelf.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string_view>

#include "absl/strings/str_format.h"
#include "lib/target/files.h"

namespace heapflare::doctor {
namespace {

struct End {
  void operator()(Elf* elf) const { elf_end(elf); }
};

void ReadInterpreter(Elf* elf, int fd, ElfFile* file) {
  size_t count = 0;
  if (elf_getphdrnum(elf, &count) != 0) return;
  for (size_t i = 0; i < count; ++i) {
    GElf_Phdr header = {};
    if (gelf_getphdr(elf, static_cast<int>(i), &header) == nullptr || header.p_type != PT_INTERP) {
      continue;
    }
    char path[4096] = {};
    const ssize_t got = pread(fd, path, std::min<size_t>(header.p_filesz, sizeof(path) - 1),
                              static_cast<off_t>(header.p_offset));
    if (got > 0) file->interpreter = path;
  }
}

void SearchSymbols(Elf* elf, Elf_Scn* section, const GElf_Shdr& header, ElfFile* file) {
  Elf_Data* data = elf_getdata(section, nullptr);
  if (data == nullptr || header.sh_entsize == 0) return;
  const uint64_t count = header.sh_size / header.sh_entsize;
  for (uint64_t i = 0; i < count; ++i) {
    GElf_Sym symbol = {};
    if (gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr) return;
    if (symbol.st_shndx == SHN_UNDEF || GELF_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
    const char* name = elf_strptr(elf, header.sh_link, symbol.st_name);
    if (name == nullptr) continue;
    if (strcmp(name, "malloc") == 0) file->defines_malloc = true;
    if (strcmp(name, "heapflare_active") == 0) file->has_heapflare = true;
  }
}

}  // namespace

absl::StatusOr<ElfFile> ReadElf(const std::string& path, uint64_t most_symbols) {
  const auto opened = target::OpenRegular(path);
  if (!opened.ok()) return opened.status();
  elf_version(EV_CURRENT);
  // Read, not mapped: a file that is being replaced can shrink.
  const std::unique_ptr<Elf, End> elf(elf_begin(opened->fd.get(), ELF_C_READ, nullptr));
  GElf_Ehdr header = {};
  if (elf == nullptr || elf_kind(elf.get()) != ELF_K_ELF ||
      gelf_getehdr(elf.get(), &header) == nullptr) {
    return absl::InvalidArgumentError(path + ": not an ELF file");
  }
  ElfFile file;
  file.machine = header.e_machine;
  file.bits = gelf_getclass(elf.get()) == ELFCLASS64 ? 64 : 32;
  file.executable = header.e_type == ET_EXEC || header.e_type == ET_DYN;
  ReadInterpreter(elf.get(), opened->fd.get(), &file);
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf.get(), section)) != nullptr;) {
    GElf_Shdr shape = {};
    if (gelf_getshdr(section, &shape) == nullptr) continue;
    const bool for_loader = shape.sh_type == SHT_DYNSYM;
    const bool for_debuggers = shape.sh_type == SHT_SYMTAB && shape.sh_entsize > 0 &&
                               shape.sh_size / shape.sh_entsize <= most_symbols;
    if (for_loader || for_debuggers) SearchSymbols(elf.get(), section, shape, &file);
  }
  return file;
}

std::string MachineName(uint16_t machine) {
  switch (machine) {
    case EM_X86_64:
      return "x86_64";
    case EM_AARCH64:
      return "aarch64";
    case EM_386:
      return "i386";
    case EM_ARM:
      return "arm";
    default:
      return absl::StrFormat("machine %d", machine);
  }
}

}  // namespace heapflare::doctor
