// Box → gperftools' heap text, for tools that read that (jeprof, old pprof, heap dashboards).
//
// Type "heapprofile": readers take the values as they are. "heap_v2/N" would make them scale every
// row by one interval N, which is wrong as soon as the interval was changed or thinned; our values
// are already unsampled, each with its own weight. Rows carry raw return addresses, leaf first;
// readers subtract 1. The header's totals in brackets are the cumulative ones. MAPPED_LIBRARIES
// holds lines as in /proc/PID/maps, which all readers know.
#pragma once

#include "lib/box/reader.h"
#include "lib/pprof/sink.h"

namespace heapflare::pprof {

// False when the sink failed.
bool EncodeLegacyText(const box::Reader& box, Sink* sink);

}  // namespace heapflare::pprof
