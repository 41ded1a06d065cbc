// reach_verdicts PID PASSES FLAGS [SPACING_MS]: asks for passes one after the other and prints as
// JSON what each was like, and what the box then says of every live sample, by size. Flags as
// box::ReachFlags. Exit code 1 if a pass was refused: "problem" has the reason.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "lib/box/reader.h"
#include "lib/control/reach.h"
#include "lib/target/target.h"

namespace {

using heapflare::box::Reach;
using nlohmann::json;

json PassAsJson(const Reach& pass) {
  return {{"passes", pass.passes},
          {"failed", pass.failed},
          {"mode", pass.mode},
          {"error", pass.error},
          {"system_error", pass.system_error},
          {"threads", pass.threads},
          {"threads_unseen", pass.threads_unseen},
          {"pause_ns", pass.pause_ns},
          {"fork_ns", pass.fork_ns},
          {"scan_ns", pass.scan_ns},
          {"bytes_scanned", pass.bytes_scanned},
          {"bytes_unread", pass.bytes_unread},
          {"extra_bytes", pass.extra_bytes},
          {"objects", pass.objects},
          {"unreachable", pass.unreachable},
          {"indirect", pass.indirect},
          {"called", pass.called},
          {"text", heapflare::control::DescribePass(pass)},
          {"blindness", heapflare::control::DescribeBlindness(pass)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "reach_verdicts PID PASSES FLAGS [SPACING_MS]\n";
    return 2;
  }
  const auto target = heapflare::target::Resolve(argv[1]);
  if (!target.ok()) {
    std::cerr << target.status() << "\n";
    return 3;
  }
  heapflare::control::ReachOptions options;
  options.passes = static_cast<uint32_t>(std::atoi(argv[2]));
  options.flags = static_cast<uint32_t>(std::atoi(argv[3]));
  options.spacing_ns = argc > 4 ? std::atoll(argv[4]) * 1'000'000 : 0;
  json result = {{"passes", json::array()}, {"samples", json::array()}, {"false_leaks", 0}};
  const absl::Status status = heapflare::control::FindUnreachable(
      target->path, target->pid, options, [&](uint32_t, const Reach& pass, const std::string&) {
        result["passes"].push_back(PassAsJson(pass));
      });
  result["problem"] = std::string(status.message());

  std::ifstream file(target->path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  heapflare::box::Reader reader;
  heapflare::base::Text<256> problem;
  if (!reader.Open(bytes.data(), bytes.size(), &problem)) {
    std::cerr << target->path << ": " << problem.c_str() << "\n";
    return 3;
  }
  for (uint64_t slot = 0; slot < reader.sample_slots(); ++slot) {
    heapflare::box::Sample sample = {};
    if (!reader.sample(slot, &sample)) continue;
    result["samples"].push_back({{"address", sample.address},
                                 {"size", heapflare::box::SizeOf(sample)},
                                 {"passes", heapflare::box::UnreachablePasses(sample)},
                                 {"indirect", heapflare::box::IsIndirect(sample)},
                                 {"called", heapflare::box::WasCalledUnreachable(sample)}});
  }
  uint64_t false_leaks = 0;
  for (uint64_t i = 0; i < reader.stack_count(); ++i) {
    heapflare::box::StackView stack = {};
    if (reader.stack(i, &stack)) false_leaks += stack.false_leaks;
  }
  result["false_leaks"] = false_leaks;
  std::cout << result.dump() << "\n";
  return status.ok() ? 0 : 1;
}
