#include "lib/doctor/program.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "lib/base/parse.h"
#include "lib/doctor/elf_file.h"
#include "lib/target/files.h"

namespace heapflare::doctor {
namespace {

constexpr const char* kLinkIt = "link it with heapflare::heapflare, which then needs no preloading";

bool IsFile(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

// The loader ignores LD_PRELOAD in programs that run with more rights than their caller.
void CheckPrivileges(const std::string& path, Findings* findings) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return;
  const bool set_user = (status.st_mode & S_ISUID) != 0 && status.st_uid != geteuid();
  const bool set_group = (status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IXGRP) != 0 &&
                         status.st_gid != getegid();
  const bool capabilities =
      geteuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
  if (!set_user && !set_group && !capabilities) return;
  // Then the bits have no effect, and the loader no reason.
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) return;
  const char* what = set_user ? "setuid" : set_group ? "setgid" : "file capabilities";
  findings->push_back({Level::kFail, "preload",
                       absl::StrFormat("%s has %s: the loader ignores LD_PRELOAD", path, what),
                       "run it as the user it becomes, or link it with heapflare::heapflare"});
}

void CheckLoader(const std::string& path, const ElfFile& program, const ElfFile* library,
                 Findings* findings) {
  const auto fail = [findings](std::string detail, std::string remedy) {
    findings->push_back({Level::kFail, "preload", std::move(detail), std::move(remedy)});
  };
  if (program.has_heapflare) {
    findings->push_back({Level::kOk, "preload", path + " is linked with heapflare", ""});
    return;
  }
  if (program.interpreter.empty()) {
    return fail(path + " is linked statically: nothing can be preloaded", kLinkIt);
  }
  const std::string loader = target::Basename(program.interpreter);
  if (loader.starts_with("ld-musl")) {
    fail(path + " uses musl, the recorder needs glibc",
         "build it for glibc (for instance on a Debian image)");
    // Its loader, unlike glibc's, gives up when a preloaded library cannot be loaded.
    findings->back().breaks = true;
    return;
  }
  if (!loader.starts_with("ld-linux") && !loader.starts_with("ld64")) {
    return fail(
        absl::StrFormat("%s is loaded by %s, the recorder needs glibc", path, program.interpreter),
        "build it for glibc");
  }
  if (library != nullptr &&
      (library->machine != program.machine || library->bits != program.bits)) {
    return fail(
        absl::StrFormat("%s is for %s (%d bits), libheapflare.so for %s", path,
                        MachineName(program.machine), program.bits, MachineName(library->machine)),
        "use a libheapflare.so that was built for the program's machine");
  }
  if (program.defines_malloc) {
    return fail(path +
                    " has a malloc of its own (a statically linked allocator), which preloading "
                    "does not reach",
                "link it with heapflare::wrap");
  }
  // Its privileges may forbid it all the same.
  if (FirstFailure(*findings) != nullptr) return;
  findings->push_back({Level::kOk, "preload",
                       absl::StrFormat("%s is dynamic, loaded by %s", path, program.interpreter),
                       ""});
}

// The words after "#!" of a script; empty if it is none.
std::string Interpreter(const std::string& path) {
  const auto file = target::OpenRegular(path);
  if (!file.ok()) return "";
  char start[256];
  const ssize_t got = pread(file->fd.get(), start, sizeof(start), 0);
  const std::string_view text(start, got > 0 ? static_cast<size_t>(got) : 0);
  if (!text.starts_with("#!")) return "";
  return std::string(base::TrimSpace(text.substr(2, text.find('\n') - 2)));
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& name, std::string_view search) {
  const auto check = [](const std::string& path) -> absl::Status {
    struct stat status = {};
    if (stat(path.c_str(), &status) != 0) {
      return target::FileError(path, "cannot be run", errno);
    }
    if (S_ISDIR(status.st_mode)) return target::FileError(path, "cannot be run", EACCES);
    if (access(path.c_str(), X_OK) != 0) return target::FileError(path, "cannot be run", errno);
    return absl::OkStatus();
  };
  if (name.find('/') != std::string::npos) {
    if (const absl::Status status = check(name); !status.ok()) return status;
    return name;
  }
  absl::Status denied = absl::OkStatus();
  for (std::string_view directory; !name.empty() && base::TakeUntil(':', &search, &directory);) {
    // An empty entry is the current directory.
    const std::string path =
        absl::StrFormat("%s/%s", directory.empty() ? std::string_view(".") : directory, name);
    const absl::Status status = check(path);
    if (status.ok()) return path;
    if (absl::IsPermissionDenied(status) && IsFile(path)) denied = status;
  }
  if (!denied.ok()) return denied;
  return absl::NotFoundError(name + ": command not found");
}

absl::StatusOr<std::string> FindLibrary() {
  const char* named = getenv("HEAPFLARE_LIBRARY");
  if (named != nullptr && *named != 0) {
    if (IsFile(named)) return std::string(named);
    return absl::NotFoundError(std::string(named) +
                               ": no such file; it is what HEAPFLARE_LIBRARY says");
  }
  std::string directory = target::ReadLink("/proc/self/exe");
  directory.resize(directory.rfind('/') + 1);
  // Where the build leaves it, and where distributions install libraries.
#if defined(__x86_64__)
  constexpr const char* kMultiarch = "../lib/x86_64-linux-gnu/";
#else
  constexpr const char* kMultiarch = "../lib/aarch64-linux-gnu/";
#endif
  for (const char* place : {"../lib/", kMultiarch, "../lib64/", ""}) {
    const std::string path = directory + place + "libheapflare.so";
    char* resolved = IsFile(path) ? realpath(path.c_str(), nullptr) : nullptr;
    if (resolved == nullptr) continue;
    std::string found = resolved;
    free(resolved);
    return found;
  }
  return absl::NotFoundError(absl::StrFormat(
      "libheapflare.so: neither in %s nor in %s../lib; set HEAPFLARE_LIBRARY to where it is",
      directory, directory));
}

Findings CheckProgram(const std::string& path, const std::string& library, std::string_view search,
                      Depth depth) {
  Findings findings;
  std::string program = path;
  // A script, its interpreter, /usr/bin/env and what that starts: each may refuse the library.
  constexpr int kMostInterpreters = 5;
  for (int depth_of_scripts = 0; depth_of_scripts < kMostInterpreters; ++depth_of_scripts) {
    const std::string words = Interpreter(program);
    if (words.empty()) break;
    std::string_view rest = words;
    std::string_view word;
    base::TakeUntil(' ', &rest, &word);
    std::string interpreter(word);
    if (target::Basename(interpreter) == "env") {
      rest = base::TrimSpace(rest);
      if (rest.starts_with("-S")) rest = base::TrimSpace(rest.substr(2));
      if (base::TakeUntil(' ', &rest, &word)) interpreter = std::string(word);
    }
    const auto found = FindProgram(interpreter, search);
    if (!found.ok()) {
      findings.push_back(
          {Level::kFail, "program",
           absl::StrFormat("%s: its interpreter %s cannot be run", program, interpreter),
           "install it, or correct the script's first line"});
      return findings;
    }
    findings.push_back(
        {Level::kOk, "program", absl::StrFormat("%s is a script, run by %s", program, *found), ""});
    program = *found;
  }
  constexpr uint64_t kFewSymbols = 40'000;
  const auto elf = ReadElf(program, depth == Depth::kQuick ? kFewSymbols : UINT64_MAX);
  if (!elf.ok()) {
    const bool text = absl::IsInvalidArgument(elf.status());
    // What is neither ELF nor "#!" is given to /bin/sh by shells, or is for binfmt_misc; nobody can
    // tell.
    findings.push_back({Level::kWarn, "preload", std::string(elf.status().message()),
                        text ? "" : "check that it can be read"});
    return findings;
  }
  CheckPrivileges(program, &findings);
  const auto library_elf =
      library.empty() ? absl::StatusOr<ElfFile>(ElfFile{}) : ReadElf(library, 0);
  const bool comparable = library_elf.ok() && library_elf->machine != 0;
  CheckLoader(program, *elf, comparable ? &*library_elf : nullptr, &findings);
  return findings;
}

}  // namespace heapflare::doctor
