// The place as the recorder will find it: limit, notifications, directories, settings.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/doctor/finding.h"

namespace heapflare::doctor {

// How /proc and directories are seen: of this process, or of another one with its own mounts.
struct View {
  std::string proc = "/proc/thread-self";
  std::string root;  // put before every path: "" or "/proc/PID/root"
  uint32_t uid = 0;
};

// `environment` is a block of NAME=value entries, each ending in a zero byte.
Findings CheckLimit(const View& view, std::string_view environment);
Findings CheckDirectories(const View& view, std::string_view environment);
Findings CheckSettings(std::string_view environment);

// What is wrong with HEAPFLARE_ variables, in the recorder's own words: "VARIABLE: 'value':
// problem; using default".
std::vector<std::string> SettingProblems(std::string_view environment);

// This process's environment as such a block.
std::string OwnEnvironment();

}  // namespace heapflare::doctor
