// The live samples of a box, found by address: lock-free, in the box itself.
//
// The allocator that is profiled orders the operations on one address for us: an address is
// inserted by the thread that has just been given it and removed by the thread that is about to
// give it back. So insert and remove of one address never race in a correct program; different
// addresses race freely. A signal handler may interrupt any function here and call any other.
// Nothing waits.
//
// Levels: see format.h. New samples go into the highest level in use; a level is put into use when
// the one below is 70 % full, which is looked into when a free slot is found late. A removed sample leaves a free slot, no tombstone: how far a search
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

  enum class Room { kPlenty, kLess, kNone };
  // kNone: there is no room near the home slot in any level, nothing was changed. kLess: inserted, but
  // a free slot was far; live() may be worth a look. `counter`: of the caller's thread, any number;
  // threads with different ones do not slow each other down.
  Room Insert(const Sample& sample, uint32_t counter = 0);
  // Fetches what Insert or Remove of `address` will touch, so that other work can hide the wait.
  void Prefetch(uint64_t address) const;
  // Takes the sample at `address` out. False: there is none.
  bool Remove(uint64_t address, Sample* sample, uint32_t counter = 0);

  // Sets marks of the sample at `address`, see format.h. False: there is none.
  bool AddMark(uint64_t address, uint64_t mark);
  // What a pass over the samples found of the one in `slot`, if it still is that one: of this
  // address and born at that time. Changes its marks (format.h), and calls it unreachable after
  // `needed` passes in a row. Returns these passes; 0 also if the sample is gone. By one thread.
  //
  // The block may be freed meanwhile, and the slot filled anew, even for the same address. So the
  // sample must be older than 0.1 s when the pass begins: then a later one differs in its birth. A
  // mark that fell on a later one all the same, between two instructions here, is taken back.
  uint32_t Mark(uint64_t slot, uint64_t address, uint32_t born_tenths, bool unreachable,
                bool indirect, uint32_t needed);
  // Slots that may be filled.
  uint64_t slots_in_use() const;

  // Reads some cache lines that other threads write.
  uint64_t live() const;
  uint64_t capacity() const { return capacity_; }

 private:
  struct Level {
    Sample* slots;
    uint8_t* reach;
    uint64_t slot_count;
  };
  // A part of each level's number of live samples: inserted by some threads less removed by them.
  struct alignas(64) Counter {
    int64_t live[kSampleLevels];
  };
  static constexpr uint32_t kCounters = 16;
  struct Found {
    Sample* slot;  // nullptr: none
    uint32_t level;
  };
  Found Find(uint64_t address) const;
  // How many slots from home a free one was found and filled; the window's size: none was.
  uint32_t InsertAt(uint32_t level, const Sample& sample, uint32_t counter);
  uint64_t LiveIn(uint32_t level) const;
  bool Raise(uint32_t levels);

  Mapping* mapping_ = nullptr;
  uint8_t* reach_ = nullptr;
  uint64_t capacity_ = 0;
  Level levels_[kSampleLevels] = {};
  Counter counters_[kCounters] = {};
};

}  // namespace heapflare::box
