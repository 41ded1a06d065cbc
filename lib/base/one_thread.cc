#include "lib/base/one_thread.h"

namespace heapflare::base {
namespace {

constexpr char kNo = 0;

}  // namespace

constinit const char* one_thread = &kNo;

}  // namespace heapflare::base
