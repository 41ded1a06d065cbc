#include "lib/symbolize/elf_symbols.h"

#include <elfutils/libdwfl.h>
#include <gelf.h>

#include "absl/strings/str_format.h"
#include "lib/target/files.h"

namespace heapflare::symbolize {
namespace {

// What is added to the file's addresses, so that the segment with `file_offset` comes to lie at
// `start`; false if there is none.
bool FindBias(const std::string& path, uint64_t start, uint64_t file_offset, uint64_t* bias) {
  // A profile may name anything: a pipe would hold us up for good.
  const auto file = target::OpenRegular(path);
  if (!file.ok()) return false;
  elf_version(EV_CURRENT);
  Elf* const elf = elf_begin(file->fd.get(), ELF_C_READ, nullptr);
  size_t count = 0;
  bool found = false;
  if (elf != nullptr && elf_getphdrnum(elf, &count) == 0) {
    for (size_t i = 0; i < count && !found; ++i) {
      GElf_Phdr segment = {};
      constexpr uint64_t kPage = 4096;
      if (gelf_getphdr(elf, static_cast<int>(i), &segment) == nullptr ||
          segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0 ||
          segment.p_offset / kPage * kPage != file_offset) {
        continue;
      }
      *bias = start - segment.p_vaddr / kPage * kPage;
      found = true;
    }
  }
  elf_end(elf);
  return found;
}

}  // namespace

struct ElfSymbols::Session {
  ~Session() {
    if (dwfl != nullptr) dwfl_end(dwfl);
  }
  Dwfl_Callbacks callbacks = {};
  char* debug_path = nullptr;
  Dwfl* dwfl = nullptr;
  Dwfl_Module* module = nullptr;
};

ElfSymbols::ElfSymbols(std::unique_ptr<Session> session) : session_(std::move(session)) {}
ElfSymbols::~ElfSymbols() = default;

std::unique_ptr<ElfSymbols> ElfSymbols::Open(const std::string& path, const std::string& build_id,
                                             uint64_t start, uint64_t file_offset) {
  uint64_t bias = 0;
  if (!FindBias(path, start, file_offset, &bias)) return nullptr;
  auto session = std::make_unique<Session>();
  session->callbacks.find_elf = dwfl_build_id_find_elf;
  session->callbacks.find_debuginfo = dwfl_standard_find_debuginfo;
  session->callbacks.section_address = dwfl_offline_section_address;
  session->callbacks.debuginfo_path = &session->debug_path;
  session->dwfl = dwfl_begin(&session->callbacks);
  if (session->dwfl == nullptr) return nullptr;
  session->module =
      dwfl_report_elf(session->dwfl, path.c_str(), path.c_str(), -1, bias, /*add_p_vaddr=*/true);
  dwfl_report_end(session->dwfl, nullptr, nullptr);
  if (session->module == nullptr) return nullptr;
  if (!build_id.empty()) {
    GElf_Addr ignored = 0;
    dwfl_module_getelf(session->module, &ignored);
    const unsigned char* bytes = nullptr;
    GElf_Addr address = 0;
    const int length = dwfl_module_build_id(session->module, &bytes, &address);
    std::string actual;
    for (int i = 0; i < length; ++i) actual += absl::StrFormat("%02x", bytes[i]);
    if (actual != build_id) return nullptr;
  }
  return std::unique_ptr<ElfSymbols>(new ElfSymbols(std::move(session)));
}

bool ElfSymbols::Find(uint64_t address, Symbol* symbol) const {
  *symbol = {};
  const char* const name = dwfl_module_addrname(session_->module, address);
  if (name == nullptr) return false;
  symbol->mangled = name;
  Dwfl_Line* const line = dwfl_module_getsrc(session_->module, address);
  if (line != nullptr) {
    const char* const file = dwfl_lineinfo(line, nullptr, &symbol->line, nullptr, nullptr, nullptr);
    if (file != nullptr) symbol->file = file;
  }
  return true;
}

}  // namespace heapflare::symbolize
