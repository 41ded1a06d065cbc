// Which mapping a location belongs to, and the address that a profile shows for it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/box/reader.h"

namespace heapflare::pprof {

class Addresses {
 public:
  explicit Addresses(const box::Reader& box) : box_(box) {
    // Modules are appended by one thread at a time, so only the last one can be unfinished.
    box::ModuleView module = {};
    for (; box_.module(modules_, &module); ++modules_) {
      unloaded_ = unloaded_ || module.state == box::ModuleState::kUnloaded;
    }
  }

  // Modules that can be named; they are 0 .. modules() - 1.
  uint64_t modules() const { return modules_; }

  // What is added to a module's addresses: 0, but for unloaded ones whose range is also another
  // one's.
  uint64_t Moved(uint64_t index) const {
    box::ModuleView module = {};
    if (!box_.module(index, &module) || module.state != box::ModuleState::kUnloaded) return 0;
    // A damaged box; what is there would wrap round.
    if (module.limit >> kMoveBits != 0) return 0;
    // Asked for every location: with this many modules a search would take too long.
    constexpr uint64_t kMostSearched = 256;
    if (modules_ > kMostSearched) return (index + 1) << kMoveBits;
    for (uint64_t i = 0; i < modules_; ++i) {
      box::ModuleView other = {};
      if (i != index && box_.module(i, &other) && other.start < module.limit &&
          module.start < other.limit) {
        return (index + 1) << kMoveBits;
      }
    }
    return 0;
  }

  // The address of the call, which is before the return address. False: no module holds it, or
  // another location stands for this place. `index` is the location's.
  bool Resolve(uint64_t index, const box::Location& location, uint64_t* address) const {
    *address = location.pc - 1;
    box::ModuleView module = {};
    if (location.module_plus_one == 0 || location.module_plus_one > modules_ ||
        !box_.module(location.module_plus_one - 1, &module) || *address < module.start ||
        *address >= module.limit) {
      // Where libraries came and went it may also be a location of theirs, or there are two without a
      // module; but no two may have one address.
      if (unloaded_) *address = OwnPlace(index, *address);
      return false;
    }
    if (IsTwin(index, location)) {
      *address = OwnPlace(index, *address);
      return false;
    }
    // Whole dumps ask for the same few modules again and again; only unloaded ones cost a search.
    if (module.state == box::ModuleState::kUnloaded) {
      *address += Moved(location.module_plus_one - 1);
    }
    return true;
  }

 private:
  // Addresses of programs have fewer bits; above them there are so many other places.
  static constexpr int kMoveBits = 48;
  static constexpr uint64_t kPlaces = 1 << 15;

  // Where code comes at run time many locations got their module late, and none is a twin: the search
  // would take too long for a dump.
  bool IsTwin(uint64_t index, const box::Location& location) const {
    constexpr uint32_t kMostSearched = 256;
    if ((location.flags & box::kLocationMayBeTwin) == 0 || searched_ == kMostSearched) return false;
    ++searched_;
    return box_.IsTwin(index, location);
  }

  // Where no module and no other location is.
  uint64_t OwnPlace(uint64_t index, uint64_t address) const {
    return address % (uint64_t{1} << kMoveBits) + ((modules_ + 1 + index) % kPlaces << kMoveBits);
  }

  const box::Reader& box_;
  uint64_t modules_ = 0;
  bool unloaded_ = false;  // some module is
  mutable uint32_t searched_ = 0;
};

}  // namespace heapflare::pprof
