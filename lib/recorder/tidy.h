// Keeps the directory of boxes from filling up with those of the dead.
#pragma once

#include <cstdint>
#include <string_view>

namespace heapflare::recorder {

// Boxes of dead processes that stay in a directory, the youngest. More than on-call needs, less
// than /dev/shm of a container (64 MiB by default) holds.
inline constexpr int kDeadBoxesKept = 16;

// At the start of a program: removes the box that this very process left when it called exec.
// Otherwise a shell, which forks and then calls exec for every command, would leave many.
void RemovePredecessor();

// On the recorder's thread: of the boxes of dead processes of this user, removes all but the youngest
// kDeadBoxesKept; and those of processes that exited cleanly but had given up the right to remove
// them, as a server's workers do that change their user.
void RemoveBoxesOfTheDead();

// The PID in PROGRAM.PID.START.box; false if `name` is not of that form.
bool ParseBoxName(std::string_view name, uint64_t* process);

}  // namespace heapflare::recorder
