// Where the encoders put their bytes.
#pragma once

#include <cstddef>

namespace heapflare::pprof {

// Takes bytes in order. No virtual destructor: sinks live on the stack or in static memory.
class Sink {
 public:
  // False: the sink failed and remembers why; nothing more is to be written.
  virtual bool Write(const void* data, size_t bytes) = 0;

 protected:
  ~Sink() = default;
};

}  // namespace heapflare::pprof
