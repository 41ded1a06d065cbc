// Access to memory that a writer changes while others read it: fields of the format, which itself
// is plain data, and whole records.
//
// A record that is used again (a ring's, a sample's) is read like this, after Boehm, "Can seqlocks
// get along with programming language memory models?" (2012), without fences: the writer takes the
// publishing word back and then stores every other word with release; the reader loads every word
// with acquire and then looks at the publishing word again. Who has seen one new word sees that the
// record was taken back. On x86_64 these are ordinary loads and stores.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace heapflare::box {

template <typename T>
std::atomic_ref<T> Atomic(T& field) {
  return std::atomic_ref<T>(field);
}
template <typename T>
T Load(const T& field, std::memory_order order) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(order);
}

// Records are made of words of 8 bytes, whatever their fields are.
using SharedWord = uint64_t __attribute__((may_alias));

// `shared`: a T, aligned to a word.
template <typename T>
void LoadShared(const void* shared, T* copy) {
  static_assert(sizeof(T) % sizeof(SharedWord) == 0);
  const auto* const from = static_cast<const SharedWord*>(shared);
  auto* const to = reinterpret_cast<SharedWord*>(copy);
  for (size_t i = 0; i < sizeof(T) / sizeof(SharedWord); ++i) {
    to[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
  }
}

// All words but the first, which is the publishing one.
template <typename T>
void StoreShared(const T& value, T* shared) {
  static_assert(sizeof(T) % sizeof(SharedWord) == 0);
  const auto* const from = reinterpret_cast<const SharedWord*>(&value);
  auto* const to = reinterpret_cast<SharedWord*>(shared);
  for (size_t i = 1; i < sizeof(T) / sizeof(SharedWord); ++i) {
    __atomic_store_n(to + i, from[i], __ATOMIC_RELEASE);
  }
}

// Point or event `number` of a ring into its slot. One writer of a slot at a time.
template <typename T>
void PublishInRing(const T& record, uint64_t number, T* slot) {
  Atomic(slot->sequence).store(0, std::memory_order_relaxed);
  StoreShared(record, slot);
  Atomic(slot->sequence).store(number + 1, std::memory_order_release);
}
// False if the slot holds another one, or is being written.
template <typename T>
bool ReadFromRing(const T& slot, uint64_t number, T* record) {
  LoadShared(&slot, record);
  return record->sequence == number + 1 &&
         Load(slot.sequence, std::memory_order_relaxed) == number + 1;
}

}  // namespace heapflare::box
