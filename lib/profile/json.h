// Profile → JSON, for programs that do not read protobuf.
//
//   {
//     "format": "heapflare-profile-1",
//     "process": {"program": "checkout", "pid": 1, ...},          only of a box; see JsonProcess
//     "time": "2025-11-24T03:10:07Z",                             when it was taken
//     "period": 524288,                                           mean bytes between samples
//     "sample_types": [{"type": "alloc_objects", "unit": "count"}, ...],
//     "default_sample_type": "inuse_space",
//     "comments": ["..."],
//     "modules": [{"path": "/usr/bin/checkout", "build_id": "abcd", "start": "0x..", "limit":
//     "0x..", "offset": "0x.."}], "samples": [
//       {"values": [3, 300, 1, 100],                              in the order of sample_types
//        "labels": {"bytes": 100},
//        "frames": [                                              leaf first; inlined functions
//        have their own frame
//          {"module": "/usr/bin/checkout", "build_id": "abcd", "address": "0x..", "offset": "0x..",
//           "function": "Insert", "file": "cache.cc", "line": 88}  the last three only with symbols
//        ]}
//     ]
//   }
//
// Addresses are strings: numbers of 64 bits do not survive every JSON reader. `address` is that of
// the call in the process, `offset` the same place in the module's file. Stacks without a value are
// left out. Written piece by piece: memory does not grow with the profile.
#pragma once

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "lib/box/format.h"
#include "lib/pprof/sink.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

// What a box says of its process: program, pid, uid, started, last_seen, state (as `state`),
// sample_interval, live_bytes, losses {...}.
nlohmann::ordered_json JsonProcess(const box::Header& header, const std::string& state);

// `process` may be null. Internal: the sink failed.
absl::Status WriteJson(const Profile& profile, const nlohmann::ordered_json& process,
                       pprof::Sink* sink);

// JSON as text; bytes that are no UTF-8 are replaced.
std::string ToText(const nlohmann::ordered_json& json, int indent = -1);

}  // namespace heapflare::profile
