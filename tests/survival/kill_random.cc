// Kills a program that allocates on several threads, at random instants, and reads what it left.
//
//   kill_random --workload=FILE --plugin=FILE --library=FILE --directory=DIR --kills=N [--seed=N]
//
// After each SIGKILL: the box keeps every promise of its format (kill_box_check.h), a profile made
// of it is valid, its totals are those of the program's own books (kill_books.h) to within the
// operations that were in flight, and every dump under its final name is whole. Boxes of forked
// children, killed with their parent, are held to the same format. Each 50th stays in DIR/kept, if it is
// complete.
//
// Where the kills fall is random; what is asserted is not: there is no false failure.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kill_books.h"
#include "kill_box_check.h"
#include "lib/profile/load.h"

namespace heapflare::test {
namespace {

namespace fs = std::filesystem;
using kill_test::Books;
using kill_test::kPluginSite;
using kill_test::kSites;
using std::chrono::microseconds;
using Clock = std::chrono::steady_clock;

struct Mode {
  const char* name;
  const char* interval;
  const char* box_size;
  bool exact;  // every allocation is recorded, so books and box must agree
  int threads;
  int longest_run;  // ms after all threads are at work
};
constexpr Mode kModes[] = {
    {"mixed", "1", "4MiB", true, 4, 10},   {"mixed", "4KiB", "1MiB", false, 4, 10},
    {"stacks", "1", "1MiB", true, 3, 12},  {"fill", "1", "1MiB", false, 2, 60},
    {"churn", "1", "2MiB", true, 3, 10},   {"dlopen", "1", "2MiB", true, 3, 10},
    {"dump", "1", "1MiB", true, 3, 15},    {"fork", "1", "1MiB", true, 3, 12},
    {"fill", "256", "1MiB", false, 3, 40},
};

struct Options {
  std::string workload, plugin, library, directory;
  uint64_t kills = 200;
  uint64_t seed = 0;
};

struct Figures {
  uint64_t kills = 0;
  uint64_t boxes = 0;
  uint64_t unborn = 0;     // killed before there was a box
  uint64_t starting = 0;   // killed while the box was being opened
  uint64_t compared = 0;   // with the books
  uint64_t in_flight = 0;  // operations under way at the kill
  uint64_t half_done = 0;  // boxes that show one of them half booked
  uint64_t dumps = 0;
  uint64_t children = 0;  // boxes of forked children
  uint64_t thinned = 0;
  uint64_t failures = 0;
};

// What one quantity of a site may be.
struct Bounds {
  uint64_t low = 0;
  uint64_t high = 0;
};
struct SiteBounds {
  Bounds allocated_objects, allocated_bytes, freed_objects, freed_bytes;
};

class Run {
 public:
  Run(const Options& options, const Mode& mode, Figures* figures)
      : options_(options), mode_(mode), figures_(*figures), place_(options.directory + "/run") {
    fs::remove_all(place_);
    for (const char* part : {"/boxes", "/dumps"}) {
      fs::create_directories(place_ + part);
      fs::permissions(place_ + part, fs::perms::owner_all);
    }
    books_path_ = place_ + "/books";
    const int fd = open(books_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(Books)) != 0) throw std::runtime_error("no books");
    void* const memory = mmap(nullptr, sizeof(Books), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) throw std::runtime_error("no books");
    books_ = static_cast<Books*>(memory);
  }
  ~Run() { munmap(books_, sizeof(Books)); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Starts the program, kills it at its random instant, and waits until nothing of it is left.
  void Kill(std::mt19937_64& random) {
    std::vector<std::string> environment = {
        "LD_PRELOAD=" + options_.library,
        "HEAPFLARE_BOX_DIR=" + place_ + "/boxes",
        "HEAPFLARE_DIR=" + place_ + "/dumps",
        std::string("HEAPFLARE_SAMPLE_INTERVAL=") + mode_.interval,
        std::string("HEAPFLARE_BOX_SIZE=") + mode_.box_size,
        "HEAPFLARE_METRIC=rss",
        "HEAPFLARE_LIMIT=64MiB",
        "HEAPFLARE_THRESHOLDS=5MiB,6MiB,7MiB,8MiB",
    };
    std::vector<std::string> arguments = {options_.workload, books_path_, mode_.name,
                                          std::to_string(mode_.threads), options_.plugin};
    const auto pointers = [](std::vector<std::string>& texts) {
      std::vector<char*> result;
      for (std::string& text : texts) result.push_back(text.data());
      result.push_back(nullptr);
      return result;
    };
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    if (posix_spawn(&pid_, options_.workload.c_str(), nullptr, &attributes,
                    pointers(arguments).data(), pointers(environment).data()) != 0) {
      throw std::runtime_error("cannot start the workload");
    }
    posix_spawnattr_destroy(&attributes);
    // Some fall into the start of the program, the opening of the box, the start of the threads.
    const bool early = random() % 4 == 0;
    if (!early) AwaitReady();
    const int most = early ? 12 : mode_.longest_run;
    std::this_thread::sleep_for(microseconds(random() % (static_cast<uint64_t>(most) * 1000)));
    kill(-pid_, SIGKILL);
    int status = 0;
    bool ended_itself = false;
    for (pid_t child = 0; (child = waitpid(-1, &status, 0)) > 0;) {
      if (child == pid_) ended_itself = !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
    }
    if (ended_itself) Fault(absl::StrFormat("the program ended by itself, status %#x", status));
    ++figures_.kills;
  }

  void Check(bool keep) {
    in_flight_ = 0;
    for (const kill_test::Lane& lane : books_->lanes) in_flight_ += lane.sequence.load() % 2;
    figures_.in_flight += in_flight_;
    bool found = false;
    for (const auto& entry : fs::directory_iterator(place_ + "/boxes")) {
      if (entry.path().extension() != ".box") continue;
      const bool own =
          entry.path().filename().string().find(absl::StrFormat(".%d.", pid_)) != std::string::npos;
      const bool open = CheckOne(entry.path(), own);
      if (own) {
        found = true;
        if (keep && open)
          fs::copy_file(entry.path(),
                        options_.directory + "/kept/" + entry.path().filename().string());
      }
    }
    if (!found) {
      ++figures_.unborn;
      if (Completed()) Fault("operations were completed and there is no box");
    }
    for (const auto& entry : fs::directory_iterator(place_ + "/dumps")) {
      if (entry.path().filename().string().ends_with(".pb.gz")) {
        ++figures_.dumps;
        const auto profile = profile::LoadFile(entry.path());
        if (!profile.ok()) Fault(profile.status().ToString());
      }
    }
    if (faults_.empty()) return;
    figures_.failures += 1;
    std::printf("kill %llu (%s, interval %s):\n  %s\n  kept: %s/failed-%llu\n",
                static_cast<unsigned long long>(figures_.kills), mode_.name, mode_.interval,
                absl::StrJoin(faults_, "\n  ").c_str(), options_.directory.c_str(),
                static_cast<unsigned long long>(figures_.kills));
    fs::rename(place_, absl::StrFormat("%s/failed-%d", options_.directory, figures_.kills));
  }

 private:
  void Fault(std::string what) { faults_.push_back(std::move(what)); }

  void AwaitReady() {
    const auto end = Clock::now() + std::chrono::seconds(30);
    while (books_->ready.load() < static_cast<uint64_t>(mode_.threads) ||
           books_->magic.load() == 0) {
      if (Clock::now() > end) {
        Fault("the program was not at work after 30 s");
        return;
      }
      std::this_thread::sleep_for(microseconds(200));
    }
  }

  // True if a thread has finished an operation, which cannot be without a box.
  bool Completed() const {
    return mode_.exact && std::any_of(std::begin(books_->lanes), std::end(books_->lanes),
                                      [](const auto& lane) { return lane.sequence.load() > 1; });
  }

  // False: it was killed before its box was complete.
  bool CheckOne(const fs::path& path, bool own) {
    const std::vector<std::byte> bytes = ReadBytes(path);
    const BoxState state = CheckBox(bytes.data(), bytes.size(), &faults_);
    if (!state.open) {
      ++figures_.starting;
      if (own && Completed()) Fault("operations were completed and the box is not open");
      return false;
    }
    ++figures_.boxes;
    if (!own) ++figures_.children;
    if (state.header.losses.thinnings > 0) ++figures_.thinned;
    CheckProfile(bytes.data(), bytes.size(), &faults_);
    const Disagreement disagreement = Compare(state);
    if (disagreement.bytes + disagreement.header + disagreement.live_count > 0)
      ++figures_.half_done;
    // Each thread has one operation under way, which touches two stacks at most (realloc). Main and
    // the threads that only wait for others are counted as well.
    const int threads = mode_.threads + 1;
    if (disagreement.stacks > 2 * threads ||
        disagreement.live_count > static_cast<uint64_t>(threads)) {
      Fault(absl::StrFormat("%d stacks and %d samples disagree, with %d threads",
                            disagreement.stacks, disagreement.live_count, threads));
    }
    if (own && books_->magic.load() != 0 && mode_.exact) CompareWithBooks(bytes, state);
    return true;
  }

  void CompareWithBooks(const std::vector<std::byte>& bytes, const BoxState& state) {
    if (state.header.losses.thinnings != 0 || state.header.losses.samples != 0) {
      Fault("a run that was to be exact was thinned");
      return;
    }
    ++figures_.compared;
    Sums sums[kSites] = {};
    SumBySite(bytes, state, sums);
    SiteBounds bounds[kSites] = {};
    for (const kill_test::Lane& lane : books_->lanes) AddLane(lane, bounds);
    // Samples that found no room for their stack are of any site.
    const Sums folded = state.stacks.contains(0) ? state.stacks.at(0) : Sums{};
    for (uint32_t site = 0; site < kSites; ++site) {
      const auto check = [&](const char* what, uint64_t have, Bounds allowed, uint64_t slack) {
        if (have + slack >= allowed.low && have <= allowed.high) return;
        Fault(absl::StrFormat("site %d: %s is %d, the books say %d to %d (%d folded)", site, what,
                              have, allowed.low, allowed.high, slack));
      };
      const SiteBounds& allowed = bounds[site];
      check("allocated objects", box::WholeObjects(sums[site].allocated_objects),
            allowed.allocated_objects, box::WholeObjects(folded.allocated_objects));
      check("allocated bytes", box::WholeBytes(sums[site].allocated_bytes), allowed.allocated_bytes,
            box::WholeBytes(folded.allocated_bytes));
      check("freed objects", box::WholeObjects(sums[site].freed_objects), allowed.freed_objects,
            box::WholeObjects(folded.freed_objects));
      check("freed bytes", box::WholeBytes(sums[site].freed_bytes), allowed.freed_bytes,
            box::WholeBytes(folded.freed_bytes));
    }
  }

  void SumBySite(const std::vector<std::byte>& bytes, const BoxState& state, Sums* sums) const {
    base::Text<256> problem;
    box::Reader reader;
    if (!reader.Open(bytes.data(), bytes.size(), &problem)) return;
    for (const auto& [index, counters] : state.stacks) {
      box::StackView stack;
      box::Location leaf;
      if (index == 0 || !reader.stack(index, &stack) || !reader.location(stack.frames[0], &leaf)) {
        continue;
      }
      const uint32_t site = SiteOf(reader, leaf);
      if (site == kSites) continue;
      sums[site].allocated_objects += counters.allocated_objects;
      sums[site].allocated_bytes += counters.allocated_bytes;
      sums[site].freed_objects += counters.freed_objects;
      sums[site].freed_bytes += counters.freed_bytes;
    }
  }

  // kSites: none of ours.
  uint32_t SiteOf(const box::Reader& reader, const box::Location& leaf) const {
    for (uint32_t site = 0; site < kPluginSite; ++site) {
      const Books::Site& code = books_->sites[site];
      if (leaf.pc > code.start && leaf.pc <= code.start + code.bytes) return site;
    }
    box::ModuleView module;
    // The plugin alone is code that the recorder may not have found yet.
    if (leaf.module_plus_one == 0) return kPluginSite;
    if (!reader.module(leaf.module_plus_one - 1, &module)) return kSites;
    return module.path == fs::canonical(options_.plugin).string() ? kPluginSite : kSites;
  }

  void AddLane(const kill_test::Lane& lane, SiteBounds* bounds) const {
    const auto add = [](Bounds& to, uint64_t value) {
      to.low += value;
      to.high += value;
    };
    for (uint32_t site = 0; site < kSites; ++site) {
      const kill_test::Totals& totals = lane.totals[site];
      add(bounds[site].allocated_objects, totals.allocated_objects.load());
      add(bounds[site].allocated_bytes, totals.allocated_bytes.load());
      add(bounds[site].freed_objects, totals.freed_objects.load());
      add(bounds[site].freed_bytes, totals.freed_bytes.load());
    }
    if (lane.sequence.load() % 2 == 0) return;
    if (lane.now.allocates) {
      bounds[lane.now.site].allocated_objects.high += 1;
      bounds[lane.now.site].allocated_bytes.high += lane.now.bytes;
    }
    if (lane.now.frees) {
      bounds[lane.now.freed_site].freed_objects.high += 1;
      bounds[lane.now.freed_site].freed_bytes.high += lane.now.freed_bytes;
    }
  }

  const Options& options_;
  const Mode& mode_;
  Figures& figures_;
  std::string place_;
  std::string books_path_;
  Books* books_ = nullptr;
  pid_t pid_ = 0;
  uint64_t in_flight_ = 0;
  Faults faults_;
};

bool Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const size_t sign = argument.find('=');
    const std::string value(sign == std::string_view::npos ? "" : argument.substr(sign + 1));
    if (argument.starts_with("--workload="))
      options->workload = value;
    else if (argument.starts_with("--plugin="))
      options->plugin = value;
    else if (argument.starts_with("--library="))
      options->library = value;
    else if (argument.starts_with("--directory="))
      options->directory = value;
    else if (argument.starts_with("--kills="))
      options->kills = std::strtoull(value.c_str(), nullptr, 10);
    else if (argument.starts_with("--seed="))
      options->seed = std::strtoull(value.c_str(), nullptr, 10);
    else
      return false;
  }
  return !options->workload.empty() && !options->plugin.empty() && !options->library.empty() &&
         !options->directory.empty();
}

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, &options)) {
    std::fprintf(stderr, "kill_random: see the top of kill_random.cc for the options\n");
    return 2;
  }
  // Forked children of a killed program are waited for here.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fs::create_directories(options.directory + "/kept");
  const uint64_t seed = options.seed != 0 ? options.seed : std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  Figures figures;
  for (uint64_t i = 0; i < options.kills && figures.failures < 10; ++i) {
    Run run(options, kModes[i % std::size(kModes)], &figures);
    run.Kill(random);
    run.Check(i % 50 == 49);
    std::fflush(stdout);
  }
  const auto row = [](const char* name, uint64_t value) {
    std::printf("%-52s %8llu\n", name, static_cast<unsigned long long>(value));
  };
  row("SIGKILLs at random instants", figures.kills);
  row("boxes read", figures.boxes);
  row("  of forked children, killed as well", figures.children);
  row("  compared with the program's own books", figures.compared);
  row("  with an operation half booked", figures.half_done);
  row("  after thinning", figures.thinned);
  row("killed before there was a box", figures.unborn);
  row("killed while the box was being opened", figures.starting);
  row("operations in flight", figures.in_flight);
  row("dumps read", figures.dumps);
  row("failures", figures.failures);
  return figures.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace heapflare::test

int main(int argc, char** argv) { return heapflare::test::Main(argc, argv); }
