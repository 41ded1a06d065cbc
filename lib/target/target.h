// What the user points at: TARGET is a PID, a box file, a profile file, a directory (the newest box
// in it), or nothing (the newest box where boxes are by default).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/box/format.h"

namespace heapflare::target {

enum class Kind { kBox, kProfile };

struct Target {
  Kind kind = Kind::kBox;
  std::string path;
  int pid = 0;  // of the living process, as seen from here; 0: not known
};

absl::StatusOr<Target> Resolve(std::string_view text);

// The box of a process; of the dead ones of that number the latest, if none lives.
absl::StatusOr<Target> FindBoxOf(int pid);

// Directories in which boxes may be, most likely first: by the variables HEAPFLARE_BOX_DIR and
// HEAPFLARE_DIR of this process, and their defaults for its user.
std::vector<std::string> DefaultDirectories();

struct ListedBox {
  std::string path;
  absl::Status status;  // why it cannot be read
  box::Header header;   // if it can
};
// Files NAME.box in a directory, newest first, then what cannot be read.
absl::StatusOr<std::vector<ListedBox>> ListBoxes(const std::string& directory);

std::string DefaultBoxDirectory(uint32_t uid);
std::string DefaultDumpDirectory(uint32_t uid);

}  // namespace heapflare::target
