// heapflare ls
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "lib/box/totals.h"
#include "lib/profile/json.h"
#include "lib/target/box_file.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "lib/target/target.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

using target::HumanSize;
using Row = std::array<std::string, 9>;

struct Listed {
  std::string path;
  absl::StatusOr<target::BoxFile> box;
  target::Life life = target::Life::kDead;
};

std::string Charge(const target::BoxFile& box) {
  box::TimelinePoint point = {};
  if (!box.LastPoint(&point) || point.usage == box::kUnknown) return "-";
  return HumanSize(point.usage) + " / " +
         (point.limit == box::kUnknown ? "none" : HumanSize(point.limit));
}

Row Describe(const Listed& listed) {
  const box::Header& header = listed.box->header();
  return {target::Printable(std::string(listed.box->reader().program())),
          absl::StrFormat("%d", header.pid),
          std::string(target::Name(listed.life)),
          target::HumanTime(header.start_utc),
          HumanSize(listed.box->live_bytes()),
          Charge(*listed.box),
          absl::StrFormat("%d", box::SumTallies(header).samples_live()),
          absl::StrFormat("%d", header.dumps),
          listed.path};
}

std::string Table(const std::vector<Row>& rows) {
  // Numbers and sizes to the right; the path, last, is not padded.
  constexpr bool kRight[std::tuple_size_v<Row>] = {false, true, false, false, true,
                                                   true,  true, true,  false};
  std::array<size_t, std::tuple_size_v<Row>> widths = {};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      const int width = static_cast<int>(widths[i]);
      absl::StrAppendFormat(&text, "%*s  ", kRight[i] ? width : -width, row[i]);
    }
    text += row.back() + "\n";
  }
  return text;
}

std::string AsText(const std::vector<Listed>& boxes) {
  std::vector<Row> rows = {{"PROGRAM", "PID", "STATE", "STARTED (UTC)", "LIVE HEAP",
                            "CHARGE / LIMIT", "SAMPLES", "DUMPS", "BOX"}};
  std::string damaged;
  for (const Listed& listed : boxes) {
    if (listed.box.ok()) {
      rows.push_back(Describe(listed));
    } else {
      damaged += target::Printable(std::string(listed.box.status().message())) + "\n";
    }
  }
  return (rows.size() > 1 ? Table(rows) : "") + damaged;
}

nlohmann::ordered_json Number(uint64_t value) {
  return value == box::kUnknown ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(value);
}

std::string AsJson(const std::vector<Listed>& boxes) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Listed& listed : boxes) {
    nlohmann::ordered_json one = {{"box", listed.path}};
    if (listed.box.ok()) {
      one.update(
          profile::JsonProcess(listed.box->header(), std::string(target::Name(listed.life))));
      box::TimelinePoint point = {};
      const bool seen = listed.box->LastPoint(&point);
      one["charge"] = Number(seen ? point.usage : box::kUnknown);
      one["limit"] = Number(seen ? point.limit : box::kUnknown);
    } else {
      one["error"] = std::string(listed.box.status().message());
    }
    list.push_back(std::move(one));
  }
  return profile::ToText(list, 2) + "\n";
}

}  // namespace

int RunLs(const Arguments& arguments) {
  Parser parser("ls");
  std::string directory;
  bool json = false;
  parser.app().add_option("DIR", directory,
                          "Where boxes are; by default HEAPFLARE_BOX_DIR and HEAPFLARE_DIR");
  parser.app().add_flag("--json", json, "Print JSON");
  if (const auto code = parser.Parse(arguments)) return *code;

  const std::vector<std::string> directories =
      directory.empty() ? target::DefaultDirectories() : std::vector<std::string>{directory};
  std::vector<Listed> boxes;
  for (const std::string& place : directories) {
    const auto found = target::ListBoxes(place);
    if (!found.ok()) {
      // By default one that is not there has no boxes; one that was named is a mistake.
      if (!directory.empty()) return parser.Fail(found.status());
      continue;
    }
    for (const target::ListedBox& box : *found) {
      Listed listed = {box.path, target::BoxFile::Load(box.path, target::Parts::kTimeline)};
      if (listed.box.ok()) listed.life = target::LifeOf(listed.box->header());
      boxes.push_back(std::move(listed));
    }
  }
  // Each directory is sorted; two of them are not.
  std::stable_sort(boxes.begin(), boxes.end(), [](const Listed& a, const Listed& b) {
    const uint64_t a_time = a.box.ok() ? a.box->header().opened_utc : 0;
    const uint64_t b_time = b.box.ok() ? b.box->header().opened_utc : 0;
    return a_time > b_time;
  });
  if (boxes.empty() && !json) {
    std::string places;
    for (const std::string& place : directories) places += (places.empty() ? "" : ", ") + place;
    parser.Complain(places +
                    ": no boxes; a program leaves one when it is started with: heapflare run");
    return kDone;
  }
  return Finish(json ? AsJson(boxes) : AsText(boxes), kDone);
}

}  // namespace heapflare::tool
