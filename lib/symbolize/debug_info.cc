#include "lib/symbolize/debug_info.h"

#include <dwarf.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_join.h"

namespace heapflare::symbolize {
namespace {

// Entries nest as deep as blocks do in source code; a damaged file may nest for ever.
constexpr int kMaximumNesting = 200;

std::string PlainName(Dwarf_Die* die) {
  const char* const name = dwarf_diename(die);
  return name != nullptr ? name : "";
}

// The entry that declares what `die` is an instance of.
Dwarf_Die Declaration(Dwarf_Die die) {
  Dwarf_Attribute attribute = {};
  Dwarf_Die next = {};
  // An instance of a definition of a declaration: no longer way is known.
  for (int steps = 0; steps < 4; ++steps) {
    if (dwarf_attr(&die, DW_AT_abstract_origin, &attribute) == nullptr &&
        dwarf_attr(&die, DW_AT_specification, &attribute) == nullptr) {
      break;
    }
    if (dwarf_formref_die(&attribute, &next) == nullptr) break;
    die = next;
  }
  return die;
}

// With namespaces and classes, for what has no linkage name: g++ gives none to what no other object
// file can call.
std::string QualifiedName(Dwarf_Die* die) {
  std::vector<std::string> names = {PlainName(die)};
  Dwarf_Die declaration = Declaration(*die);
  Dwarf_Die* scopes = nullptr;
  const int count = dwarf_getscopes_die(&declaration, &scopes);
  // The first is itself.
  for (int i = 1; i < count; ++i) {
    const int tag = dwarf_tag(&scopes[i]);
    const bool is_class =
        tag == DW_TAG_class_type || tag == DW_TAG_structure_type || tag == DW_TAG_union_type;
    if (!is_class && tag != DW_TAG_namespace) continue;
    std::string outer = PlainName(&scopes[i]);
    if (outer.empty()) outer = is_class ? "(anonymous class)" : "(anonymous namespace)";
    names.insert(names.begin(), std::move(outer));
  }
  std::free(scopes);
  return absl::StrJoin(names, "::");
}

int Number(Dwarf_Die* die, unsigned int attribute_name) {
  Dwarf_Attribute attribute = {};
  Dwarf_Word value = 0;
  if (dwarf_attr(die, attribute_name, &attribute) == nullptr ||
      dwarf_formudata(&attribute, &value) != 0 || value > INT32_MAX) {
    return 0;
  }
  return static_cast<int>(value);
}

// The file of that number in the unit's line table.
std::string FileOf(Dwarf_Die* unit, int number) {
  Dwarf_Files* files = nullptr;
  size_t count = 0;
  if (dwarf_getsrcfiles(unit, &files, &count) != 0 || static_cast<size_t>(number) >= count) {
    return "";
  }
  const char* const name = dwarf_filesrc(files, static_cast<size_t>(number), nullptr, nullptr);
  return name != nullptr ? name : "";
}

bool IsCxx(int language) {
  return language == DW_LANG_C_plus_plus || language == DW_LANG_C_plus_plus_03 ||
         language == DW_LANG_C_plus_plus_11 || language == DW_LANG_C_plus_plus_14;
}

}  // namespace

std::vector<DebugInfo::Range> DebugInfo::RangesOf(Dwarf_Die* die, uint32_t index) {
  std::vector<Range> ranges;
  Dwarf_Addr base = 0;
  Dwarf_Addr low = 0;
  Dwarf_Addr high = 0;
  ptrdiff_t next = 0;
  while ((next = dwarf_ranges(die, next, &base, &low, &high)) > 0) {
    // What the linker dropped lies at 0, or at the end of all addresses.
    if (low != 0 && low < high) ranges.push_back({low, high, index});
  }
  return ranges;
}

void DebugInfo::SetName(Dwarf_Die* die, bool cxx, Frame* frame) {
  Dwarf_Attribute attribute = {};
  for (const unsigned int wanted : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    // Follows DW_AT_abstract_origin and DW_AT_specification.
    if (dwarf_attr_integrate(die, wanted, &attribute) != nullptr) {
      if (const char* const name = dwarf_formstring(&attribute)) {
        frame->system_name = name;
        return;
      }
    }
  }
  frame->system_name = PlainName(die);
  if (!cxx) return;
  // Which classes it lies in is found by a search of its unit.
  const Dwarf_Off origin = [die] {
    Dwarf_Die declaration = Declaration(*die);
    return dwarf_dieoffset(&declaration);
  }();
  std::string& name = qualified_names_[origin];
  if (name.empty()) name = QualifiedName(die);
  frame->name = name;
}

DebugInfo::DebugInfo(Dwarf* dwarf) {
  Dwarf_CU* cu = nullptr;
  Dwarf_Die die = {};
  Dwarf_Die split = {};
  uint8_t kind = 0;
  while (dwarf_get_units(dwarf, cu, &cu, nullptr, &kind, &die, &split) == 0) {
    if (kind != DW_UT_compile && kind != DW_UT_skeleton) continue;
    const auto index = static_cast<uint32_t>(units_.size());
    const std::vector<Range> ranges = RangesOf(&die, index);
    if (ranges.empty()) continue;
    ranges_.insert(ranges_.end(), ranges.begin(), ranges.end());
    Unit unit = {};
    unit.lines = die;
    unit.content = kind == DW_UT_skeleton && dwarf_tag(&split) == DW_TAG_compile_unit ? split : die;
    unit.cxx = IsCxx(dwarf_srclang(&unit.content));
    units_.push_back(std::move(unit));
  }
  std::ranges::sort(ranges_, {}, &Range::low);
}

const DebugInfo::Range* DebugInfo::FindRange(const std::vector<Range>& sorted, uint64_t address) {
  const auto after = std::ranges::upper_bound(sorted, address, {}, &Range::low);
  if (after == sorted.begin() || std::prev(after)->high <= address) return nullptr;
  return &*std::prev(after);
}

void DebugInfo::Read(Unit* unit) {
  unit->read = true;
  ReadChildren(&unit->content, unit, -1, 0, 0);
  std::ranges::sort(unit->ranges, {}, &Range::low);
}

// `function`: which of the unit's `parent` belongs to, -1: none; `depth`: how deep in it things are
// inlined.
void DebugInfo::ReadChildren(Dwarf_Die* parent, Unit* unit, int64_t function, uint32_t depth,
                             int nesting) {
  Dwarf_Die child = {};
  if (nesting > kMaximumNesting || dwarf_child(parent, &child) != 0) return;
  do {
    switch (dwarf_tag(&child)) {
      case DW_TAG_subprogram: {
        const auto index = static_cast<uint32_t>(unit->functions.size());
        std::vector<Range> ranges = RangesOf(&child, index);
        if (ranges.empty()) break;  // a declaration, or what is inlined everywhere
        unit->ranges.insert(unit->ranges.end(), ranges.begin(), ranges.end());
        unit->functions.push_back({Scope{child, 0, std::move(ranges)}});
        ReadChildren(&child, unit, index, 0, nesting + 1);
        break;
      }
      case DW_TAG_inlined_subroutine: {
        if (function < 0) break;
        Scope scope = {child, depth + 1, RangesOf(&child, 0)};
        unit->functions[static_cast<size_t>(function)].push_back(std::move(scope));
        ReadChildren(&child, unit, function, depth + 1, nesting + 1);
        break;
      }
      case DW_TAG_lexical_block:
      case DW_TAG_try_block:
      case DW_TAG_catch_block:
      case DW_TAG_namespace:
      case DW_TAG_module:
      // A local class, a lambda's too, may have its functions in it.
      case DW_TAG_class_type:
      case DW_TAG_structure_type:
      case DW_TAG_union_type:
        ReadChildren(&child, unit, function, depth, nesting + 1);
        break;
      default:
        break;
    }
  } while (dwarf_siblingof(&child, &child) == 0);
}

Frames DebugInfo::Find(uint64_t address) {
  const Range* const in_unit = FindRange(ranges_, address);
  if (in_unit == nullptr) return {};
  Unit& unit = units_[in_unit->index];
  if (!unit.read) Read(&unit);
  const Range* const in_function = FindRange(unit.ranges, address);
  if (in_function == nullptr) return {};

  std::vector<Scope*> scopes;
  for (Scope& scope : unit.functions[in_function->index]) {
    const auto covers = [address](const Range& range) {
      return range.low <= address && address < range.high;
    };
    if (std::ranges::any_of(scope.ranges, covers)) scopes.push_back(&scope);
  }
  std::ranges::stable_sort(scopes, std::ranges::greater(), &Scope::depth);

  // The line table has the innermost place; where each is inlined stands with it.
  std::string file;
  int line = 0;
  if (Dwarf_Line* const row = dwarf_getsrc_die(&unit.lines, address)) {
    const char* const name = dwarf_linesrc(row, nullptr, nullptr);
    if (name != nullptr) file = name;
    dwarf_lineno(row, &line);
  }
  Frames frames;
  for (Scope* const scope : scopes) {
    int start_line = 0;
    dwarf_decl_line(&scope->die, &start_line);
    Frame& frame = frames.emplace_back();
    SetName(&scope->die, unit.cxx, &frame);
    frame.file = std::move(file);
    frame.line = line;
    frame.start_line = start_line;
    if (scope->depth == 0) break;
    file = FileOf(&unit.content, Number(&scope->die, DW_AT_call_file));
    line = Number(&scope->die, DW_AT_call_line);
  }
  // A function without a name is none; the symbol table may know better.
  if (frames.empty() || frames.back().system_name.empty()) return {};
  return frames;
}

}  // namespace heapflare::symbolize
