// Writes small ELF files that nobody could run: enough for what looks at programs from the outside.
#pragma once

#include <elf.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>

namespace heapflare::test {

struct ElfShape {
  uint16_t machine = EM_X86_64;
  std::string interpreter = "";  // empty: static
  std::string symbol = "";       // a function that it defines; empty: none
  uint32_t table = SHT_SYMTAB;   // where the symbol is: SHT_SYMTAB or SHT_DYNSYM
};

inline void WriteElf(const std::string& path, const ElfShape& shape) {
  // One after the other: header, program header, three section headers, symbols, strings.
  struct {
    Elf64_Ehdr header;
    Elf64_Phdr program;
    Elf64_Shdr sections[3];
    Elf64_Sym symbols[2];
  } file = {};
  const uint64_t strings_at = sizeof(file);
  const std::string symbol_names = std::string(1, 0) + shape.symbol + std::string(1, 0);
  const std::string interpreter = shape.interpreter + std::string(1, 0);

  memcpy(file.header.e_ident, ELFMAG, SELFMAG);
  file.header.e_ident[EI_CLASS] = ELFCLASS64;
  file.header.e_ident[EI_DATA] = ELFDATA2LSB;
  file.header.e_ident[EI_VERSION] = EV_CURRENT;
  file.header.e_type = ET_DYN;
  file.header.e_machine = shape.machine;
  file.header.e_version = EV_CURRENT;
  file.header.e_ehsize = sizeof(Elf64_Ehdr);
  file.header.e_phoff = sizeof(Elf64_Ehdr);
  file.header.e_phentsize = sizeof(Elf64_Phdr);
  file.header.e_phnum = 1;
  file.header.e_shoff = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr);
  file.header.e_shentsize = sizeof(Elf64_Shdr);
  file.header.e_shnum = 3;
  file.program.p_type = shape.interpreter.empty() ? PT_LOAD : PT_INTERP;
  file.program.p_offset = strings_at + symbol_names.size();
  file.program.p_filesz = interpreter.size();
  file.sections[1].sh_type = shape.table;
  file.sections[1].sh_offset = offsetof(decltype(file), symbols);
  file.sections[1].sh_size = sizeof(file.symbols);
  file.sections[1].sh_entsize = sizeof(Elf64_Sym);
  file.sections[1].sh_link = 2;
  file.sections[2].sh_type = SHT_STRTAB;
  file.sections[2].sh_offset = strings_at;
  file.sections[2].sh_size = symbol_names.size();
  if (!shape.symbol.empty()) {
    file.symbols[1].st_name = 1;
    file.symbols[1].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
    file.symbols[1].st_shndx = 1;
  }
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&file), sizeof(file));
  out << symbol_names << interpreter;
  out.close();
  chmod(path.c_str(), 0755);
}

}  // namespace heapflare::test
