// The live samples of a box, found by address: lock-free, in the box itself.
//
// The allocator that is profiled orders the operations on one address for us: an address is
// inserted by the thread that has just been given it and removed by the thread that is about to
// give it back. So insert and remove of one address never race in a correct program; different
// addresses race freely. A signal handler may interrupt any function here and call any other.
// Nothing waits.
//
// Levels: see format.h. New samples go into the highest level in use; a level is put into use when
// the one below is 70 % full. A removed sample leaves a free slot, no tombstone: how far a search
// must look is kept per home slot, in private memory, as the farthest distance at which a sample of
// that home was ever put.
#pragma once

#include <cstdint>

#include "lib/box/mapping.h"

namespace heapflare::box {

class SampleTable {
 public:
  // Memory for the search distances comes from one anonymous mapping. 0 or negative errno.
  int Attach(Mapping* mapping);
  void Detach();

  // False: no room near the home slot in any level, nothing was changed.
  bool Insert(const Sample& sample);
  bool Contains(uint64_t address) const { return Find(address).slot != nullptr; }
  // Takes the sample at `address` out. False: there is none.
  bool Remove(uint64_t address, Sample* sample);

  uint64_t live() const;
  uint64_t capacity() const { return capacity_; }

 private:
  struct Level {
    Sample* slots;
    uint8_t* reach;
    uint64_t slot_count;
    uint64_t live;
  };
  struct Found {
    Sample* slot;  // nullptr: none
    uint32_t level;
  };
  Found Find(uint64_t address) const;
  bool InsertAt(Level& level, const Sample& sample);
  bool Raise(uint32_t levels);

  Mapping* mapping_ = nullptr;
  uint8_t* reach_ = nullptr;
  uint64_t capacity_ = 0;
  Level levels_[kSampleLevels] = {};
};

}  // namespace heapflare::box
