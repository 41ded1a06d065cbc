#include "lib/pprof/gzip.h"

namespace heapflare::pprof {

void* Gzip::Allocate(void* self, unsigned count, unsigned size) {
  auto* gzip = static_cast<Gzip*>(self);
  const size_t bytes = (static_cast<size_t>(count) * size + 15) & ~size_t{15};
  if (bytes > kArenaBytes - gzip->arena_used_) return nullptr;
  void* memory = gzip->arena_ + gzip->arena_used_;
  gzip->arena_used_ += bytes;
  return memory;
}

void Gzip::Release(void* /*self*/, void* /*memory*/) {}  // Begin starts over

bool Gzip::Begin(Sink* out) {
  out_ = out;
  arena_used_ = 0;
  stream_ = {};
  stream_.zalloc = Allocate;
  stream_.zfree = Release;
  stream_.opaque = this;
  constexpr int kGzipFormat = 16;  // added to the window bits, see deflateInit2
  if (deflateInit2(&stream_, kLevel, Z_DEFLATED, kWindowBits + kGzipFormat, kMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return false;
  }
  stream_.next_out = output_;
  stream_.avail_out = kOutputBytes;
  return true;
}

bool Gzip::Write(const void* data, size_t bytes) {
  stream_.next_in = static_cast<Bytef*>(const_cast<void*>(data));
  stream_.avail_in = static_cast<uInt>(bytes);
  while (stream_.avail_in > 0) {
    if (!Deflate(Z_NO_FLUSH)) return false;
  }
  return true;
}

bool Gzip::Finish() {
  stream_.next_in = nullptr;
  stream_.avail_in = 0;
  bool done = false;
  while (!done) {
    const int result = deflate(&stream_, Z_FINISH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) return false;
    done = result == Z_STREAM_END;
    if (!out_->Write(output_, kOutputBytes - stream_.avail_out)) return false;
    stream_.next_out = output_;
    stream_.avail_out = kOutputBytes;
  }
  return true;
}

bool Gzip::Deflate(int flush) {
  if (deflate(&stream_, flush) == Z_STREAM_ERROR) return false;
  if (stream_.avail_out > 0) return true;
  stream_.next_out = output_;
  stream_.avail_out = kOutputBytes;
  return out_->Write(output_, kOutputBytes);
}

void Gzip::Touch() {
  constexpr size_t kPage = 4096;
  for (size_t at = 0; at < kArenaBytes; at += kPage) {
    static_cast<volatile unsigned char*>(arena_)[at] = 0;
  }
  for (size_t at = 0; at < kOutputBytes; at += kPage) {
    static_cast<volatile unsigned char*>(output_)[at] = 0;
  }
}

}  // namespace heapflare::pprof
