// Which function of a stack holds the memory, and how it is called among people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/profile/frames.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::leak {

// A frame as people read it; inlined functions have frames of their own.
struct Frame {
  std::string function;  // as the profile has it
  std::string file;      // without its directories; empty: not known
  int64_t line = 0;
  std::string module;  // without its directories
};

// Of a sample, leaf first.
std::vector<Frame> FramesOf(const profile::Frames& frames, const profile::Sample& sample);

// The frame that is to be named: the first that is neither of an allocator nor of libc nor of the C++
// library, which allocate for others. The leaf if there is none.
size_t NamedFrame(const std::vector<Frame>& frames);

// "ns::Cache<>::Insert" of "void ns::Cache<int, Less<int> >::Insert<int>(int const&)": without return
// type, arguments and what the templates are of.
std::string ShortName(std::string_view function);

}  // namespace heapflare::leak
