#include "kill_scene.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_format.h"

namespace heapflare::test {

namespace fs = std::filesystem;
using Stop = Tracee::Stop;

namespace {
constexpr auto kDeadline = std::chrono::seconds(20);
}  // namespace

BoxWatch::BoxWatch(std::string directory) : directory_(std::move(directory)) {}

BoxWatch::~BoxWatch() {
  if (live_ != nullptr) munmap(const_cast<std::byte*>(live_), copy_.size());
}

bool BoxWatch::Present() {
  if (live_ != nullptr) return true;
  for (const auto& entry : fs::directory_iterator(directory_)) {
    if (entry.path().extension() == ".box") path_ = entry.path();
  }
  if (path_.empty()) return false;
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (fd < 0 || fstat(fd, &status) != 0 || status.st_size == 0) {
    if (fd >= 0) close(fd);
    return false;
  }
  const auto bytes = static_cast<size_t>(status.st_size);
  void* const mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED) return false;
  live_ = static_cast<const std::byte*>(mapped);
  copy_.resize(bytes);
  return true;
}

bool BoxWatch::Refresh(uint64_t offset, uint64_t bytes) {
  if (offset >= copy_.size()) return false;
  bytes = std::min<uint64_t>(bytes, copy_.size() - offset);
  if (std::memcmp(live_ + offset, copy_.data() + offset, bytes) == 0) return false;
  std::memcpy(copy_.data() + offset, live_ + offset, bytes);
  return true;
}

bool BoxWatch::Changed(bool thorough) {
  constexpr uint64_t kPage = 4096;
  if (!Present()) return false;
  bool changed = Refresh(0, kPage);
  box::Header header = {};
  std::memcpy(&header, copy_.data(), sizeof(header));
  for (uint32_t id = 0; id < box::kRegionCount; ++id) {
    const box::Region& region = header.regions[id];
    uint64_t records = std::min(region.used + 1, region.capacity);
    if (id == box::kSamples) {
      records = 0;
      for (uint32_t i = 0; i < std::min(header.sample_levels, box::kSampleLevels); ++i) {
        records += region.capacity / box::kSampleShares << (2 * i);
      }
    }
    // While the box is made it has no sizes yet.
    if (id == box::kGrowth && region.record_bytes != 0) {
      records = region.reserved / region.record_bytes;
    }
    if (thorough) records = region.capacity;
    changed |= Refresh(region.offset, records * region.record_bytes);
  }
  return changed;
}

Scene::Scene(const Programs& programs, const Scenario& scenario) : scenario_(scenario) {
  std::string pattern = programs.directory + "/scene-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no directory for a scene");
  place_ = pattern;
  boxes_ = place_ + "/boxes";
  dumps_ = place_ + "/dumps";
  for (const std::string& part : {boxes_, dumps_}) {
    fs::create_directory(part);
    fs::permissions(part, fs::perms::owner_all);
  }
  const std::string path = place_ + "/page";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* memory = MAP_FAILED;
  if (fd >= 0 && ftruncate(fd, sizeof(kill_test::Page)) == 0) {
    memory = mmap(nullptr, sizeof(kill_test::Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (memory == MAP_FAILED) throw std::runtime_error("no page");
  close(fd);
  page_ = static_cast<kill_test::Page*>(memory);
  box_ = std::make_unique<BoxWatch>(boxes_);
  const std::string argument = *scenario.argument != 0 ? scenario.argument : programs.plugin;
  tracee_ = std::make_unique<Tracee>(
      std::vector<std::string>{programs.victim, path, scenario.operation, argument},
      std::vector<std::string>{"HEAPFLARE_BOX_DIR=" + boxes_, "HEAPFLARE_DIR=" + dumps_,
                               std::string("HEAPFLARE_SAMPLE_INTERVAL=") + scenario.interval,
                               "HEAPFLARE_BOX_SIZE=1MiB", "HEAPFLARE_THRESHOLDS="},
      programs.library);
}

Scene::~Scene() {
  tracee_.reset();
  box_.reset();
  munmap(page_, sizeof(kill_test::Page));
  fs::remove_all(place_);
}

std::string Scene::Where() const {
  return absl::StrFormat("%s, libheapflare.so+%#x", scenario_.name,
                         tracee_->LibraryOffset(tracee_->pc()));
}

bool Scene::Run(uint64_t to, Faults* faults) {
  const bool first = !started_;
  tracee_->SetDeadline(kDeadline);
  const Stop stop = tracee_->RunToMarker(first && scenario_.with_recorder);
  if (stop == Stop::kMarker && tracee_->marker() == to) return true;
  const char* const what = stop == Stop::kEnded   ? "the victim died"
                           : stop == Stop::kStuck ? "the victim does not go on"
                                                  : "the victim came to another marker";
  faults->push_back(
      absl::StrFormat("%s: %s (status %#x)", scenario_.name, what, tracee_->status()));
  return false;
}

box::Header Scene::HeaderNow() {
  box_->Changed(false);
  box::Header header = {};
  if (box_->copy().size() >= sizeof(header)) {
    std::memcpy(&header, box_->copy().data(), sizeof(header));
  }
  return header;
}

// The thread works on its own while the victim stands at its marker.
bool Scene::AwaitRecorder(Faults* faults) {
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  while (std::chrono::steady_clock::now() < end) {
    tracee_->ServeRecorder();
    if (HeaderNow().regions[box::kRecent].used > 0) {
      tracee_->HoldRecorder();
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  faults->push_back(absl::StrFormat("%s: the recorder's thread did not begin", scenario_.name));
  return false;
}

bool Scene::ToOperation(Faults* faults) {
  if (!Run(kill_test::kBefore, faults)) return false;
  if (started_) return true;
  started_ = true;
  std::vector<uint64_t> allocator;
  for (const auto& address : page_->allocator) allocator.push_back(address.load());
  tracee_->SkipFunctions(std::move(allocator));
  if (scenario_.with_recorder && !AwaitRecorder(faults)) return false;
  for (uint64_t i = 0; i < scenario_.warm_up; ++i) {
    if (!Run(kill_test::kAfter, faults) || !Run(kill_test::kBefore, faults)) return false;
  }
  while (scenario_.from_live > 0 &&
         box::SumTallies(HeaderNow()).samples_live() < scenario_.from_live) {
    if (!Run(kill_test::kAfter, faults) || !Run(kill_test::kBefore, faults)) return false;
  }
  return true;
}

bool Scene::ToEnd(Faults* faults) { return Run(kill_test::kAfter, faults); }

BoxState Scene::Look(Faults* faults) {
  box_->Changed(true);
  const std::vector<std::byte>& bytes = box_->copy();
  BoxState state = CheckBox(bytes.data(), bytes.size(), faults);
  CheckProfile(bytes.data(), bytes.size(), faults);
  return state;
}

namespace {

std::string MakePlace() {
  std::string pattern = access("/dev/shm", W_OK) == 0 ? "/dev/shm/heapflare-steps-XXXXXX"
                                                      : "/tmp/heapflare-steps-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
  return pattern;
}

SteppingOptions ParseSteppingOptions(int argc, char** argv) {
  SteppingOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::string value = argument.substr(argument.find('=') + 1);
    if (argument.starts_with("--victim=")) options.programs.victim = value;
    if (argument.starts_with("--plugin=")) options.programs.plugin = value;
    if (argument.starts_with("--library=")) options.programs.library = value;
    if (argument.starts_with("--only=")) options.only = value;
    if (argument == "--long") options.all = true;
  }
  options.programs.directory = MakePlace();
  return options;
}

}  // namespace

int RunStepping(int argc, char** argv, Faults (*run)(const SteppingOptions& options)) {
  try {
    const SteppingOptions options = ParseSteppingOptions(argc, argv);
    const Faults faults = run(options);
    fs::remove_all(options.programs.directory);
    for (const std::string& fault : faults) std::printf("%s\n", fault.c_str());
    return faults.empty() ? 0 : 1;
  } catch (const std::runtime_error& error) {
    std::printf("%s: %s\n", argv[0], error.what());
    return std::strstr(error.what(), "not allowed") != nullptr ? 77 : 1;
  }
}

void AppendTo(Faults* all, const Faults& some, const std::string& where) {
  for (const std::string& fault : some) {
    if (all->size() < 40) all->push_back(where + ": " + fault);
  }
}

}  // namespace heapflare::test
