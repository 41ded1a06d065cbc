#include "lib/profile/json.h"

#include <cmath>

#include "lib/leak/blame.h"
#include "lib/leak/report.h"
#include "lib/target/human.h"

namespace heapflare::leak {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kHour = 3600;

Json Known(uint64_t value) { return value == box::kUnknown ? Json(nullptr) : Json(value); }

Json Rounded(double value) {
  return std::isfinite(value) ? Json(std::round(value * 10) / 10) : Json(nullptr);
}

class Writer {
 public:
  explicit Writer(const Report& report) : report_(report), frames_(report.named) {}

  Json Write() const {
    const box::Header& header = report_.box.header();
    const Findings& findings = report_.findings;
    return {{"box", report_.box.path()},
            {"process", profile::JsonProcess(header, std::string(target::Name(report_.life)))},
            {"watched_seconds", Rounded(findings.now)},
            {"looks", findings.looks},
            {"live_bytes", Rounded(findings.live_bytes)},
            {"limit", Known(findings.limit)},
            {"working_set", Known(findings.working_set)},
            {"growth", GrowthPart()},
            {"unreachable", UnreachablePart()}};
  }

 private:
  static Json Held(const Holding& holding) {
    return {{"bytes", Rounded(holding.bytes)},
            {"bytes_error", Rounded(holding.error)},
            {"objects", Rounded(holding.objects)},
            {"samples", holding.samples}};
  }

  Json Growing(const GrowthSuspect& suspect) const {
    const Growth& growth = suspect.growth;
    const auto since = static_cast<uint64_t>(std::max(growth.since, 0.0) * 1e9);
    Json json = Held(suspect.holding);
    json["share"] = std::isfinite(suspect.share) ? Json(suspect.share) : Json(nullptr);
    json["slope_bytes_per_hour"] = Rounded(growth.slope * kHour);
    json["slope_error"] = Rounded(growth.error * kHour);
    json["since"] = target::IsoTime(report_.box.header().opened_utc + since);
    json["since_seconds"] = Rounded(report_.findings.now - growth.since);
    json["grown_bytes"] = Rounded(growth.bytes);
    json["seconds_to_limit"] =
        suspect.seconds_to_limit ? Rounded(*suspect.seconds_to_limit) : Json(nullptr);
    return json;
  }

  void AddStack(size_t sample, Json* json) const {
    const std::vector<Frame> frames =
        FramesOf(frames_, report_.named.sample(static_cast<int>(sample)));
    (*json)["function"] = frames.empty() ? "" : ShortName(frames[NamedFrame(frames)].function);
    Json& list = (*json)["frames"] = Json::array();
    for (const Frame& frame : frames) {
      list.push_back({{"function", frame.function},
                      {"file", frame.file},
                      {"line", frame.line},
                      {"module", frame.module}});
    }
  }

  Json GrowthPart() const {
    const Findings& findings = report_.findings;
    Json suspects = Json::array();
    for (size_t i = 0; i < findings.growing.size(); ++i) {
      suspects.push_back(Growing(findings.growing[i]));
      AddStack(i, &suspects.back());
    }
    Json early = Json::array();
    for (const GrowthSuspect& suspect : findings.early) early.push_back(Growing(suspect));
    Json judged = Json::object();
    for (size_t i = 0; i < static_cast<size_t>(Verdict::kCount); ++i) {
      judged[Name(static_cast<Verdict>(i))] = findings.by_verdict[i];
    }
    return {{"suspects", suspects},
            {"too_early", early},
            {"smallest_slope_bytes_per_hour", Rounded(SmallestSlope(report_) * kHour)},
            {"judged", judged}};
  }

  Json UnreachablePart() const {
    const Findings& findings = report_.findings;
    const box::Reach& reach = findings.reach;
    Json suspects = Json::array();
    for (size_t i = 0; i < findings.unreachable.size(); ++i) {
      const UnreachableSuspect& suspect = findings.unreachable[i];
      Json json = Held(suspect.holding);
      json["indirect_bytes"] = Rounded(suspect.indirect_bytes);
      json["passes"] = suspect.fewest_passes;
      json["oldest_seconds"] = Rounded(suspect.oldest);
      AddStack(findings.growing.size() + i, &json);
      suspects.push_back(std::move(json));
    }
    return {{"searched", reach.passes > 0},
            {"passes", reach.passes},
            {"passes_needed", reach.passes_needed},
            {"failed", reach.failed},
            {"mode", reach.mode},
            {"error", reach.error},
            {"pause_ms", static_cast<double>(reach.pause_ns) / 1e6},
            {"fork_ms", static_cast<double>(reach.fork_ns) / 1e6},
            {"bytes_scanned", reach.bytes_scanned},
            {"bytes_unread", reach.bytes_unread},
            {"suspects", suspects},
            {"suppressed_stacks", findings.suppressed},
            {"false_leaks", findings.false_leaks}};
  }

  const Report& report_;
  const profile::Frames frames_;
};

}  // namespace

Json AsJson(const Report& report) { return Writer(report).Write(); }

}  // namespace heapflare::leak
