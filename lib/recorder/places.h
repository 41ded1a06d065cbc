// Where the recorder puts its files: directories that are its own, and the names in them.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/text.h"
#include "lib/recorder/settings.h"

namespace heapflare::recorder {

// Makes `path` usable for our files: creates it 0700 if it is missing, and what it lies in as well
// (0755), and refuses what is not a directory, is a symbolic link, or belongs to somebody else than
// this user or root. 0 or negative errno, -ELOOP for a link, -EPERM for a foreign owner.
int UseDirectory(const char* path);

// HEAPFLARE_DIR, or its default for this user.
void DumpDirectory(const Settings& settings, base::TextWriter* path);

// The directories for boxes in order of preference: number `choice`; false past the last.
bool BoxDirectory(const Settings& settings, int choice, base::TextWriter* path);

// PROGRAM.PID.START, the stem of every file name; START in seconds.
void Stem(std::string_view program, int32_t process, uint64_t start_seconds,
          base::TextWriter* name);

}  // namespace heapflare::recorder
