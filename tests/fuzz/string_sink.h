// Keeps what an encoder writes.
#pragma once

#include <string>

#include "lib/pprof/sink.h"

namespace heapflare::fuzz {

class StringSink final : public pprof::Sink {
 public:
  bool Write(const void* data, size_t bytes) override {
    text_.append(static_cast<const char*>(data), bytes);
    return true;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace heapflare::fuzz
