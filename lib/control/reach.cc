#include "lib/control/reach.h"

#include <errno.h>
#include <time.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/control/client.h"
#include "lib/target/box_file.h"
#include "lib/target/human.h"

namespace heapflare::control {
namespace {

constexpr double kMillisecond = 1e6;
constexpr double kSecond = 1e9;

void Sleep(int64_t ns) {
  timespec left = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

}  // namespace

absl::Status FindUnreachable(const std::string& box_path, int pid, const ReachOptions& options,
                             const ReachReport& report) {
  for (uint32_t number = 1; number <= options.passes; ++number) {
    if (number > 1) Sleep(options.spacing_ns);
    const auto problem = Ask(box_path, pid,
                             {.kind = box::ControlKind::kReach,
                              .argument = box::ReachArgument(options.passes, options.flags)},
                             options.timeout_ns);
    if (!problem.ok()) return problem.status();
    const auto header = target::ReadBoxHeader(box_path);
    if (!header.ok()) return header.status();
    report(number, header->reach, *problem);
    if (!problem->empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(box_path, ": pass ", number, " was not made: ", *problem));
    }
  }
  return absl::OkStatus();
}

std::string DescribePass(const box::Reach& pass) {
  const auto ms = [](uint64_t ns) { return static_cast<double>(ns) / kMillisecond; };
  std::string text;
  const auto mode = static_cast<box::ReachMode>(pass.mode);
  if (mode == box::ReachMode::kStoppedFork || mode == box::ReachMode::kStoppedLive) {
    absl::StrAppendFormat(&text, "paused %.1f ms", ms(pass.pause_ns));
    if (pass.fork_ns != 0) absl::StrAppendFormat(&text, " (fork %.1f ms)", ms(pass.fork_ns));
    absl::StrAppendFormat(&text, ", %d threads; ", pass.threads);
  } else if (pass.fork_ns != 0) {
    absl::StrAppendFormat(&text, "fork %.1f ms; ", ms(pass.fork_ns));
  }
  absl::StrAppendFormat(
      &text, "%s searched in %.1f s, %s extra memory; ", target::HumanSize(pass.bytes_scanned),
      static_cast<double>(pass.scan_ns) / kSecond, target::HumanSize(pass.extra_bytes));
  absl::StrAppendFormat(&text, "%d of %d samples without a reference", pass.unreachable,
                        pass.objects);
  return text;
}

std::string DescribeBlindness(const box::Reach& pass) {
  std::string text;
  const auto add = [&text](const std::string& what) {
    if (!text.empty()) text += "; ";
    text += what;
  };
  switch (static_cast<box::ReachMode>(pass.mode)) {
    case box::ReachMode::kStoppedFork:
    case box::ReachMode::kNone:
      break;
    case box::ReachMode::kFork:
      add("threads could not be stopped: pointers that only a register holds were not seen");
      break;
    case box::ReachMode::kStoppedLive:
      add("memory was searched in use: pointers that moved meanwhile may have been missed");
      break;
    case box::ReachMode::kLive:
      add("threads could not be stopped and memory was searched in use: pointers in registers, and "
          "those that moved meanwhile, were not seen");
      break;
  }
  if (pass.threads_unseen != 0) {
    add(absl::StrFormat("registers of %d threads were not seen", pass.threads_unseen));
  }
  if (pass.kernel_unseen != 0) {
    add("what epoll and timers refer to was not seen");
  }
  if (pass.bytes_unread != 0) {
    add(absl::StrFormat("%s could not be read", target::HumanSize(pass.bytes_unread)));
  }
  return text;
}

}  // namespace heapflare::control
