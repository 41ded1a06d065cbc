#include "lib/symbolize/find_elf.h"

#include <elf.h>
#include <elfutils/libdwelf.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/symbolize/debuginfod.h"

namespace heapflare::symbolize {
namespace {

constexpr uint64_t kPage = 4096;

using ElfHandle = std::unique_ptr<Elf, decltype(&elf_end)>;

ElfHandle OpenElf(int file) {
  elf_version(EV_CURRENT);
  return {elf_begin(file, ELF_C_READ_MMAP, nullptr), &elf_end};
}

std::string BuildIdOf(int file) {
  const ElfHandle elf = OpenElf(file);
  const void* bytes = nullptr;
  const ssize_t length = elf == nullptr ? 0 : dwelf_elf_gnu_build_id(elf.get(), &bytes);
  std::string text;
  for (ssize_t i = 0; i < length; ++i) {
    absl::StrAppendFormat(&text, "%02x", static_cast<const unsigned char*>(bytes)[i]);
  }
  return text;
}

// The kernel's code in every process is no file: this process's, as one.
target::Descriptor OwnVdso() {
  const auto start = getauxval(AT_SYSINFO_EHDR);
  target::Descriptor file(memfd_create("vdso", MFD_CLOEXEC));
  if (start == 0 || file.get() < 0) return target::Descriptor();
  // It ends with its section headers.
  const auto* const header = reinterpret_cast<const Elf64_Ehdr*>(start);
  const size_t bytes = header->e_shoff + static_cast<size_t>(header->e_shentsize) * header->e_shnum;
  const auto written = write(file.get(), reinterpret_cast<const void*>(start), bytes);
  return written == static_cast<ssize_t>(bytes) ? std::move(file) : target::Descriptor();
}

std::vector<std::string> PathsOf(const Mapped& mapped) {
  std::vector<std::string> paths;
  if (absl::StartsWith(mapped.path, "/")) {
    if (mapped.pid != 0) paths.push_back(absl::StrCat("/proc/", mapped.pid, "/root", mapped.path));
    paths.push_back(mapped.path);
  }
  if (mapped.pid != 0) {
    paths.push_back(
        absl::StrFormat("/proc/%d/map_files/%x-%x", mapped.pid, mapped.start, mapped.limit));
    paths.push_back(absl::StrCat("/proc/", mapped.pid, "/exe"));
  }
  if (mapped.build_id.size() > 2) {
    const std::string name = absl::StrCat("/usr/lib/debug/.build-id/", mapped.build_id.substr(0, 2),
                                          "/", mapped.build_id.substr(2));
    paths.push_back(name + ".debug");
    paths.push_back(name);
    if (mapped.pid != 0) {
      paths.push_back(absl::StrCat("/proc/", mapped.pid, "/root", name, ".debug"));
    }
  }
  return paths;
}

}  // namespace

bool FindElf(const Mapped& mapped, const UseElf& use) {
  const auto take = [&](target::Descriptor file, const std::string& path) {
    return file.get() >= 0 && BuildIdOf(file.get()) == mapped.build_id &&
           use(std::move(file), path);
  };
  if (mapped.path == "[vdso]") return take(OwnVdso(), mapped.path);
  for (const std::string& path : PathsOf(mapped)) {
    // A profile may name anything: a pipe would hold us up for good.
    auto file = target::OpenRegular(path);
    if (file.ok() && take(std::move(file->fd), path)) return true;
  }
  if (mapped.build_id.empty()) return false;
  for (const bool debug_info : {true, false}) {
    std::string path;
    target::Descriptor file = FetchFromDebuginfod(mapped.build_id, debug_info, &path);
    if (take(std::move(file), path)) return true;
  }
  return false;
}

bool FindBias(int file, const Mapped& mapped, uint64_t* bias) {
  const ElfHandle elf = OpenElf(file);
  size_t count = 0;
  if (elf == nullptr || elf_getphdrnum(elf.get(), &count) != 0) return false;
  std::vector<GElf_Phdr> executable;
  for (size_t i = 0; i < count; ++i) {
    GElf_Phdr segment = {};
    if (gelf_getphdr(elf.get(), static_cast<int>(i), &segment) == nullptr ||
        segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) {
      continue;
    }
    const uint64_t offset = segment.p_offset / kPage * kPage;
    if (mapped.file_offset >= offset && mapped.file_offset < segment.p_offset + segment.p_filesz) {
      *bias = mapped.start - (segment.p_vaddr / kPage * kPage + (mapped.file_offset - offset));
      return true;
    }
    executable.push_back(segment);
  }
  // A file of debug information alone has the segments' addresses, not always their offsets.
  if (executable.size() != 1) return false;
  *bias = mapped.start - executable[0].p_vaddr / kPage * kPage;
  return true;
}

std::string DebugPath(const Mapped& mapped) {
  std::string path = ":.debug:/usr/lib/debug";
  if (mapped.pid != 0) absl::StrAppend(&path, ":/proc/", mapped.pid, "/root/usr/lib/debug");
  return path;
}

}  // namespace heapflare::symbolize
