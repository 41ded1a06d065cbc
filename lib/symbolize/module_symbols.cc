#include "lib/symbolize/module_symbols.h"

#include <elfutils/libdwfl.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "lib/symbolize/debug_info.h"
#include "lib/symbolize/find_elf.h"

namespace heapflare::symbolize {

struct ModuleSymbols::Session {
  ~Session() {
    debug_info.reset();
    if (dwfl != nullptr) dwfl_end(dwfl);
  }
  std::string debug_path;
  char* debug_path_pointer = nullptr;
  Dwfl_Callbacks callbacks = {};
  Dwfl* dwfl = nullptr;
  Dwfl_Module* module = nullptr;
  std::optional<DebugInfo> debug_info;
  uint64_t debug_bias = 0;
};

ModuleSymbols::ModuleSymbols(std::unique_ptr<Session> session) : session_(std::move(session)) {}
ModuleSymbols::~ModuleSymbols() = default;

std::unique_ptr<ModuleSymbols> ModuleSymbols::Open(const Mapped& mapped) {
  std::unique_ptr<Session> opened;
  FindElf(mapped, [&](target::Descriptor file, const std::string& path) {
    uint64_t bias = 0;
    if (!FindBias(file.get(), mapped, &bias)) return false;
    auto session = std::make_unique<Session>();
    session->debug_path = DebugPath(mapped);
    session->debug_path_pointer = session->debug_path.data();
    session->callbacks.find_elf = dwfl_build_id_find_elf;
    session->callbacks.find_debuginfo = dwfl_standard_find_debuginfo;
    session->callbacks.section_address = dwfl_offline_section_address;
    session->callbacks.debuginfo_path = &session->debug_path_pointer;
    session->dwfl = dwfl_begin(&session->callbacks);
    if (session->dwfl == nullptr) return false;
    // libdwfl keeps the descriptor if it takes the file.
    const int fd = dup(file.get());
    session->module =
        dwfl_report_elf(session->dwfl, path.c_str(), path.c_str(), fd, bias, /*add_p_vaddr=*/true);
    dwfl_report_end(session->dwfl, nullptr, nullptr);
    if (session->module == nullptr) {
      close(fd);
      return false;
    }
    Dwarf_Addr debug_bias = 0;
    if (Dwarf* const dwarf = dwfl_module_getdwarf(session->module, &debug_bias)) {
      session->debug_info.emplace(dwarf);
      session->debug_bias = debug_bias;
    }
    // Without debug information it serves, until a candidate with some is found.
    const bool enough = session->debug_info.has_value();
    if (enough || opened == nullptr) opened = std::move(session);
    return enough;
  });
  if (opened == nullptr) return nullptr;
  return std::unique_ptr<ModuleSymbols>(new ModuleSymbols(std::move(opened)));
}

bool ModuleSymbols::has_debug_info() const { return session_->debug_info.has_value(); }

Frames ModuleSymbols::Find(uint64_t address) const {
  if (session_->debug_info) {
    Frames frames = session_->debug_info->Find(address - session_->debug_bias);
    if (!frames.empty()) return frames;
  }
  const char* const name = dwfl_module_addrname(session_->module, address);
  if (name == nullptr) return {};
  return {OnlyName(name)};
}

}  // namespace heapflare::symbolize
