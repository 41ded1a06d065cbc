#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_format.h"
#include "lib/control/reach.h"
#include "lib/leak/blame.h"
#include "lib/leak/report.h"
#include "lib/target/human.h"

namespace heapflare::leak {
namespace {

using target::HumanDuration;
using target::HumanSize;

constexpr double kHour = 3600;
constexpr size_t kMostSuspects = 3;
constexpr size_t kMostFrames = 5;

uint64_t Whole(double value) {
  return value > 0 ? static_cast<uint64_t>(std::min(value, 9e18)) : 0;
}

// "113 ± 4 MiB": in one unit, as many digits as the error is worth. What is certain has no error.
std::string SizeWithError(double bytes, double error) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    error /= 1024;
    ++unit;
  }
  const bool exact = error * 1000 < std::abs(bytes);
  const double least = exact ? std::abs(bytes) / 100 : error;
  const int digits = unit == 0 || least >= 1 ? 0 : least >= 0.1 ? 1 : 2;
  if (exact) return absl::StrFormat("%.*f %s", digits, bytes, kUnits[unit]);
  return absl::StrFormat("%.*f ± %.*f %s", digits, bytes, digits, error, kUnits[unit]);
}

class Writer {
 public:
  Writer(const Report& report, bool verbose)
      : report_(report), verbose_(verbose), frames_(report.named) {}

  std::string Write() {
    Head();
    Growing();
    Early();
    Unreachable();
    text_ +=
        "\nLeft at exit: not in a box; heapflare run --leak-check -- PROGRAM finds what a program "
        "leaves behind.\n";
    Watched();
    return std::move(text_);
  }

 private:
  template <typename... Args>
  void Add(const absl::FormatSpec<Args...>& format, const Args&... args) {
    absl::StrAppendFormat(&text_, format, args...);
  }

  const Findings& findings() const { return report_.findings; }
  const box::Header& header() const { return report_.box.header(); }
  std::string TimeAt(double seconds) const {
    return target::HumanTime(header().opened_utc + Whole(seconds * 1e9));
  }

  void Head() {
    const std::string program = target::Printable(std::string(report_.box.reader().program()));
    const bool alive = report_.life == target::Life::kAlive;
    Add("%s (pid %d, %s) was watched for %s", program, header().pid,
        std::string(target::Name(report_.life)), HumanDuration(Whole(findings().now)));
    if (!alive) Add(", until %s UTC", TimeAt(findings().now));
    Add("; it %s %s.\n", alive ? "holds" : "held", HumanSize(Whole(findings().live_bytes)));
    if (!findings().any()) Add("No stack is suspected of a leak.\n");
  }

  // The stack below the function that is named, and where that is.
  void Stack(size_t sample) {
    const std::vector<Frame> frames =
        FramesOf(frames_, report_.named.sample(static_cast<int>(sample)));
    const size_t named = frames.empty() ? 0 : NamedFrame(frames);
    if (verbose_) {
      for (size_t i = 0; i < frames.size(); ++i) {
        Add("     %s %s%s\n", i == named ? "→" : " ", target::Printable(frames[i].function),
            Place(frames[i]));
      }
      return;
    }
    text_ += "    ";
    for (size_t i = named; i < frames.size() && i < named + kMostFrames; ++i) {
      const std::string place = Place(frames[i]);
      if (i > named) text_ += "  ←  " + target::Printable(ShortName(frames[i].function));
      text_ += i == named && place.empty() ? " " + frames[i].module : place;
    }
    text_ += frames.size() > named + kMostFrames ? "  ← …\n" : "\n";
  }
  static std::string Place(const Frame& frame) {
    if (frame.file.empty()) return "";
    const std::string file = " " + target::Printable(frame.file);
    return frame.line > 0 ? absl::StrFormat("%s:%d", file, frame.line) : file;
  }
  std::string NameOf(size_t sample) const {
    const std::vector<Frame> frames =
        FramesOf(frames_, report_.named.sample(static_cast<int>(sample)));
    if (frames.empty()) return "[a stack without frames]";
    return target::Printable(ShortName(frames[NamedFrame(frames)].function));
  }

  size_t Shown(size_t count) const { return verbose_ ? count : std::min(count, kMostSuspects); }
  void More(size_t count) {
    if (Shown(count) < count) Add("  and %d more; -v shows all\n", count - Shown(count));
  }

  void Growing() {
    const auto& growing = findings().growing;
    Add("\nGrowing: %s\n", growing.empty() ? "nothing grows and goes on growing."
                                           : "holds more and more, and does not level off.");
    for (size_t i = 0; i < Shown(growing.size()); ++i) {
      const GrowthSuspect& suspect = growing[i];
      const Growth& growth = suspect.growth;
      Add("  %d. %s holds %s (%.0f %%) and has grown %s/h for %s, since %s UTC.\n", i + 1,
          NameOf(i), SizeWithError(suspect.holding.bytes, suspect.holding.error),
          100 * suspect.share, SizeWithError(growth.slope * kHour, growth.error * kHour),
          HumanDuration(Whole(findings().now - growth.since)), TimeAt(growth.since));
      Stack(i);
      Add("     %s", Evidence(suspect));
    }
    More(growing.size());
  }

  std::string Evidence(const GrowthSuspect& suspect) const {
    const double sigmas = suspect.growth.slope / suspect.growth.error;
    std::string text = absl::StrFormat("%d live samples · slope %.0f standard errors",
                                       suspect.holding.samples, sigmas);
    if (!suspect.seconds_to_limit) {
      return text + " · no limit known\n";
    }
    if (report_.life != target::Life::kAlive) {
      return text +
             absl::StrFormat(" · %s were free below the limit of %s\n",
                             HumanSize(Whole(*suspect.seconds_to_limit * suspect.growth.slope)),
                             HumanSize(findings().limit));
    }
    return text + absl::StrFormat(" · at this slope the limit, %s, is reached in %s\n",
                                  HumanSize(findings().limit),
                                  HumanDuration(Whole(*suspect.seconds_to_limit)));
  }

  void Early() {
    const auto& early = findings().early;
    if (early.empty()) return;
    Add("  %d more stack%s %s grown too briefly to tell a leak from a burst", early.size(),
        early.size() == 1 ? "" : "s", early.size() == 1 ? "has" : "have");
    Add(", the fastest by %s/h for %s (-v).\n",
        SizeWithError(early[0].growth.slope * kHour, early[0].growth.error * kHour),
        HumanDuration(Whole(findings().now - early[0].growth.since)));
  }

  void Unreachable() {
    const box::Reach& reach = findings().reach;
    if (reach.passes == 0) {
      Add("\nUnreachable: not searched%s.\n",
          report_.life == target::Life::kAlive
              ? absl::StrFormat("; heapflare leaks --reach %d does it", header().pid)
              : "");
      return;
    }
    const auto& list = findings().unreachable;
    Add("\nUnreachable: %s\n",
        list.empty()
            ? absl::StrFormat("every sampled block was referred to in the last of %d passes.",
                              reach.passes)
            : absl::StrFormat("no pointer to it was found in %d passes in a row.",
                              reach.passes_needed));
    for (size_t i = 0; i < Shown(list.size()); ++i) {
      const UnreachableSuspect& suspect = list[i];
      const size_t sample = findings().growing.size() + i;
      Add("  %d. %s lost %s", i + 1, NameOf(sample),
          SizeWithError(suspect.holding.bytes, suspect.holding.error));
      if (suspect.indirect_bytes > 0) {
        Add(", of which %s by other lost blocks", HumanSize(Whole(suspect.indirect_bytes)));
      }
      Add("; the oldest is %s old.\n", HumanDuration(Whole(suspect.oldest)));
      Stack(sample);
      Add("     %d samples · unreachable in %d passes at least\n", suspect.holding.samples,
          suspect.fewest_passes);
    }
    More(list.size());
    if (findings().suppressed > 0) {
      Add("  %d stack%s not named: the search was wrong about %d of their blocks before\n",
          findings().suppressed, findings().suppressed == 1 ? " is" : "s are",
          findings().false_leaks);
    }
    Add("  last pass: %s\n", control::DescribePass(reach));
    const std::string unseen = control::DescribeBlindness(reach);
    if (!unseen.empty()) Add("  not seen: %s\n", unseen);
  }

  // How much was seen, and what cannot be seen.
  void Watched() {
    const double smallest = SmallestSlope(report_);
    Add("\nWatched: %d stacks with live blocks, %d looks kept, ", findings().judged,
        findings().looks);
    if (header().interval == 1) {
      Add("every allocation recorded.\n");
    } else {
      Add("one sample per %s; a leak below about %s/h would not show yet.\n",
          HumanSize(header().interval), HumanSize(Whole(smallest * kHour)));
    }
    if (verbose_) {
      text_ += "  judged:";
      for (size_t i = 0; i < static_cast<size_t>(Verdict::kCount); ++i) {
        if (findings().by_verdict[i] == 0) continue;
        Add(" %d %s,", findings().by_verdict[i], Name(static_cast<Verdict>(i)));
      }
      if (text_.back() == ',') text_.back() = '\n';
    }
    const box::Losses& losses = header().losses;
    if (losses.samples + losses.folded_stacks > 0) {
      Add("  lost: %d samples; %d booked on no stack of their own\n", losses.samples,
          losses.folded_stacks);
    }
    Add("  Not seen: memory that malloc did not hand out (mappings, page cache, kernel).\n");
  }

  const Report& report_;
  const bool verbose_;
  const profile::Frames frames_;
  std::string text_;
};

}  // namespace

double SmallestSlope(const Report& report) {
  // 16 samples in two thirds of the time are four standard errors.
  const box::Header& header = report.box.header();
  const double watched = report.findings.now;
  if (header.interval <= 1 || !(watched > 0)) return 0;
  return 24 * static_cast<double>(header.interval) / watched;
}

std::string AsText(const Report& report, bool verbose) { return Writer(report, verbose).Write(); }

}  // namespace heapflare::leak
