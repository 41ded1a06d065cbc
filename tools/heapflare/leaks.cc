// heapflare leaks
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "lib/base/parse.h"
#include "lib/control/reach.h"
#include "lib/leak/findings.h"
#include "lib/leak/report.h"
#include "lib/leak/suspect_profile.h"
#include "lib/profile/json.h"
#include "lib/profile/write_file.h"
#include "lib/symbolize/symbol_cache.h"
#include "lib/symbolize/symbolize.h"
#include "lib/target/box_file.h"
#include "lib/target/process.h"
#include "lib/target/target.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

// "90", "90s", "10m", "2h30m", "1.5d": seconds.
std::optional<double> ParseSeconds(std::string text) {
  if (text.find_first_not_of("0123456789.") == std::string::npos) text += "s";
  double days = 0;
  if (text.ends_with("d")) {
    absl::Duration as_hours;
    text.back() = 'h';
    if (!absl::ParseDuration(text, &as_hours)) return std::nullopt;
    days = absl::ToDoubleHours(as_hours);
    text = "0s";
  }
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration)) return std::nullopt;
  const double seconds = absl::ToDoubleSeconds(duration) + days * 86400;
  if (!(seconds > 0 && seconds < 1e9)) return std::nullopt;
  return seconds;
}

absl::StatusOr<target::Target> ResolveBox(const std::string& text) {
  auto target = target::Resolve(text);
  if (target.ok() && target->kind == target::Kind::kProfile) {
    return absl::InvalidArgumentError(
        target->path +
        ": a profile shows one moment, a leak takes a history: name the PID or its box (heapflare "
        "ls); two profiles compare by: go tool pprof -base");
  }
  return target;
}

// Has the process search itself. What each pass cost and could not see goes to stderr.
absl::Status Search(const target::Target& target, const control::ReachOptions& options,
                    const Parser& parser) {
  const auto header = target::ReadBoxHeader(target.path);
  if (!header.ok()) return header.status();
  const target::Life life = target.pid != 0 ? target::Life::kAlive : target::LifeOf(*header);
  if (life == target::Life::kDead || life == target::Life::kExited) {
    return absl::NotFoundError(
        absl::StrFormat("%s: its process (pid %d) is dead, its memory is gone; what earlier "
                        "searches found is in the "
                        "box: heapflare leaks %s",
                        target.path, header->pid, target.path));
  }
  return control::FindUnreachable(
      target.path, target.pid, options,
      [&](uint32_t number, const box::Reach& pass, const std::string& problem) {
        if (!problem.empty()) return;  // the status says it
        const std::string unseen = control::DescribeBlindness(pass);
        parser.Complain(absl::StrFormat("pass %d of %d: %s%s", number, options.passes,
                                        control::DescribePass(pass),
                                        unseen.empty() ? "" : "; " + unseen));
      });
}

}  // namespace

int RunLeaks(const Arguments& arguments) {
  Parser parser("leaks");
  std::string target_text;
  std::string output;
  std::string min_bytes_text;
  std::string since_text;
  bool reach = false;
  control::ReachOptions reach_options;
  std::string spacing_text = "60s";
  bool fail = false;
  bool json = false;
  bool verbose = false;
  parser.app().add_option("TARGET", target_text,
                          "PID, box, or directory; by default the newest box. The process need not "
                          "be alive");
  parser.app().add_flag("-v,--verbose", verbose,
                        "All suspects, whole stacks, and how other stacks were judged");
  parser.app().add_flag("--json", json, "Print JSON");
  parser.app().add_option("-o,--output", output,
                          "Also write the suspects as a pprof profile: leaked_objects, "
                          "leaked_space, label evidence");
  parser.app().add_flag("--reach", reach,
                        "First have the process search for blocks that nothing refers to");
  parser.app()
      .add_option("--passes", reach_options.passes,
                  "Searches in a row that must find no reference to a block")
      ->default_str("3")
      ->check(CLI::Range(1U, box::kMostPasses));
  parser.app()
      .add_option("--spacing", spacing_text, "Time between two searches (as 10s, 5m)")
      ->default_str("60s");
  parser.app().add_flag("--fail", fail, "Exit 1 if there are suspects");
  parser.app().add_option("--min-bytes", min_bytes_text,
                          "Leave out suspects that hold less than SIZE (as 512KiB)");
  parser.app().add_option(
      "--since", since_text,
      "Only what grew, or was allocated, in the last DURATION (as 10m, 2h, 1d)");
  if (const auto code = parser.Parse(arguments)) return *code;

  leak::Options options;
  if (!min_bytes_text.empty()) {
    const auto bytes = base::ParseSize(min_bytes_text);
    if (!bytes) {
      return parser.Misused(
          absl::StrFormat("--min-bytes '%s': not a size (as 524288, 512KiB)", min_bytes_text));
    }
    options.min_bytes = *bytes;
  }
  if (!since_text.empty()) {
    options.since = ParseSeconds(since_text);
    if (!options.since) {
      return parser.Misused(
          absl::StrFormat("--since '%s': not a duration (as 90s, 10m, 2h, 1d)", since_text));
    }
  }

  const auto spacing = ParseSeconds(spacing_text);
  if (!spacing) {
    return parser.Misused(
        absl::StrFormat("--spacing '%s': not a duration (as 10s, 5m)", spacing_text));
  }
  reach_options.spacing_ns = static_cast<int64_t>(*spacing * 1e9);

  const auto target = ResolveBox(target_text);
  if (!target.ok()) return parser.Fail(target.status());
  if (reach) {
    const absl::Status searched = Search(*target, reach_options, parser);
    if (!searched.ok()) return parser.Fail(searched);
  }
  const auto box = target::BoxFile::Load(target->path);
  if (!box.ok()) return parser.Fail(box.status());
  const target::Life life = target->pid != 0 ? target::Life::kAlive : target::LifeOf(box->header());

  const leak::Findings findings = leak::Find(box->reader(), options);
  auto profile = leak::MakeProfile(*box, life, findings);
  if (!profile.ok()) return parser.Fail(profile.status());
  symbolize::Symbolize(&*profile,
                       {.pid = target->pid, .cache_directory = symbolize::CacheDirectory()});
  if (!output.empty()) {
    const absl::Status written = profile::WriteFile(output, *profile);
    if (!written.ok()) return parser.Fail(written);
  }
  const leak::Report report = {.box = *box, .life = life, .findings = findings, .named = *profile};
  return Finish(
      json ? profile::ToText(leak::AsJson(report), 2) + "\n" : leak::AsText(report, verbose),
      fail && findings.any() ? kBadNews : kDone);
}

}  // namespace heapflare::tool
