// The box: the file in which a process keeps its heap profile outside its own death. This header is
// the format's specification; writer and reader include it and nothing else describes it.
//
// A box is one file, mapped shared by the process that it describes and by nobody else for writing.
// It starts with a Header; the header names the regions, each an array of fixed-size records
// (kStrings: bytes):
//
//   region      record         grows by   one record is
//   kModules    Module         append     a mapped executable segment: of an ELF file, or of memory
//   kStrings    byte           append     names that other records point at, not zero-terminated
//   kLocations  Location       append     one distinct program counter
//   kFrames     uint32 index   append     stacks' frames: indexes of locations, leaf first
//   kStacks     Stack          append     one distinct stack, with its counters
//   kSamples    Sample         hash       one live recorded allocation; in levels, see below
//   kHistory    TimelinePoint  ring       memory use, one point per kHistoryPeriodSeconds or more
//   kRecent     TimelinePoint  ring       memory use, every look at it: the last seconds in detail
//   kEvents     Event          ring       what happened: dumps, rungs, thinning, failures
//   kGrowth     GrowthRecord   by stack   what lived of stack i at some moments of the past
//
// Numbers are little-endian and naturally aligned. Sizes are bytes. Times are nanoseconds: `_mono`
// of CLOCK_MONOTONIC, `_utc` since 1970. An index counts from 0; a field called `..._plus_one` has
// 0 for "none".
//
// Publication. The writer dies by SIGKILL between any two instructions, so a record becomes real by
// ONE store:
//   append    the writer takes a slot by adding 1 to the region's `used` (so `used` runs ahead of
//             what is filled), fills it, then release-stores the record's publishing word, which
//             was zero: Module.state, Location.pc, Stack.depth. A reader skips records below `used`
//             whose word is zero. Records are never removed.
//   kSamples  the publishing word is Sample.address: 0 and kSampleClaimed are "free" and "being
//             filled". It is cleared before anything else when the allocation is freed.
//   rings     `used` counts all points ever written; slot = number modulo capacity. A point is real
//             if its `sequence` equals its number + 1; the writer zeroes it first and stores it
//             last.
//   kGrowth   works by columns: a column is one look at all stacks, and all its values are real if
//             the time in Header.growth_mono of its number is not zero. The writer zeroes that
//             before it changes the first value and stores the new time after the last. Records
//             beyond `reserved` stand for zeros. `used` counts the looks.
// Counters only grow, by atomic adds; a stack's live value is allocated - freed. A reader reads
// freed before allocated, so that no difference is negative. Between two adds of one operation a
// kill can fall: sums are right to within the operations that were in flight.
//
// Space is reserved before it is touched: a page below Region.reserved can be stored to without
// SIGBUS, the rest of the file is a hole. A reader of a file that ends early takes what is there.
//
// A reader trusts nothing: it checks the header once, and every index, offset and length where it
// is used.
#pragma once

#include <cstdint>

namespace heapflare::box {

inline constexpr uint64_t kMagic = 0x0a31424552414c46;  // "FLAREB1\n" in the file
// Changes when an older reader would misread the file.
inline constexpr uint32_t kVersion = 2;

// What HEAPFLARE_BOX_SIZE may ask for; a larger box is not believed.
inline constexpr uint64_t kMinimumFileBytes = uint64_t{1} << 20;
inline constexpr uint64_t kMaximumFileBytes = uint64_t{1} << 33;

inline constexpr uint32_t kMaxFrames = 512;    // frames of one stack, at most
inline constexpr uint32_t kNameBytes = 64;     // Header.program
inline constexpr uint32_t kBuildIdBytes = 32;  // longest build id kept; SHA-1 has 20
inline constexpr uint32_t kHistoryPeriodSeconds = 10;

// Objects are counted in units of 1/65536, bytes in units of 1/256, so that a sample's weight (1/p)
// is kept without bias and a free takes out exactly what the allocation put in; 2^56 bytes fit a
// counter.
inline constexpr int kObjectShift = 16;
inline constexpr int kByteShift = 8;
// The bytes, in units of 1/256, that one sample of `size` bytes and `weight` objects (1/65536)
// stands for.
constexpr uint64_t WeightedBytes(uint64_t size, uint64_t weight) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(size) * weight) >>
                               (kObjectShift - kByteShift));
}

// Units of the format to units of people, rounded to nearest; of any number, so that the larger of
// two stays it.
constexpr uint64_t WholeObjects(uint64_t objects) {
  return (objects >> kObjectShift) + (objects >> (kObjectShift - 1) & 1);
}
constexpr uint64_t WholeBytes(uint64_t bytes) {
  return (bytes >> kByteShift) + (bytes >> (kByteShift - 1) & 1);
}

enum RegionId : uint32_t {
  kModules,
  kStrings,
  kLocations,
  kFrames,
  kStacks,
  kSamples,
  kHistory,
  kRecent,
  kEvents,
  kGrowth,
  kRegionCount,
};

struct Region {
  uint64_t offset;    // of the region in the file, a multiple of the page size (4 KiB)
  uint64_t capacity;  // records
  uint64_t record_bytes;
  uint64_t used;      // records taken (append), points ever written (rings), unused (kSamples)
  uint64_t reserved;  // bytes from `offset` on that have space in the file system
};

enum class State : uint32_t {
  kStarting = 0,  // the header is not complete; nothing else is to be believed
  kRunning = 1,   // recording, or killed while recording
  kClosed = 2,    // the process exited by itself; normally the file is removed as well
};

// What is not in the profile, and why; each counts since the process started.
struct Losses {
  uint64_t samples;           // not recorded: no room for the sample, or the recorder was busy
  uint64_t sample_bytes;      // what those stood for
  uint64_t folded_stacks;     // samples booked on the "other" stack, for want of room for their own
  uint64_t truncated_stacks;  // stacks that are deeper than the limit on frames
  uint64_t unwind_failures;   // stacks that could not be walked to their end
  uint64_t thinnings;     // times the interval was doubled because the samples' region filled up
  uint64_t missed_frees;  // frees that bypassed the recorder, found when the address came back
};

inline constexpr uint32_t kGrowthColumns = 16;

// A part of the totals; only grows.
inline constexpr uint32_t kTallies = 16;

struct alignas(64) Tally {
  uint64_t allocated_bytes;  // 1/256 byte; over all stacks
  uint64_t freed_bytes;      // 1/256 byte
  uint64_t samples_taken;    // recorded allocations
  uint64_t samples_freed;
};

// How the last pass of the search for unreachable blocks (lib/recorder/reach.h) saw the process.
enum class ReachMode : uint32_t {
  kNone = 0,
  kStoppedFork = 1,  // all threads stopped for a moment: registers, then a forked copy
  kFork = 2,         // a forked copy without the threads' registers
  kStoppedLive = 3,  // registers, then memory as it is while the process runs on
  kLive = 4,         // memory as it is while the process runs on
};

enum class ReachError : uint32_t {
  kNone = 0,
  kNoBox = 1,        // no samples are taken
  kHeadroom = 2,     // too little memory is left
  kExtraMemory = 3,  // the copy came to cost more than kReachMostExtraBytes
  kDeadline = 4,     // it took too long
  kSystem = 5,       // the kernel refused something: `system_error`
  kDied = 6,         // the copy was killed: `system_error` is the signal
  kUnreadable = 7,   // the process's mappings cannot be listed
};

// What a pass may cost the process's cgroup for a while.
inline constexpr uint64_t kReachMostExtraBytes = uint64_t{64} << 20;

// The search for unreachable blocks; all but the first three of its last pass. One writer.
struct Reach {
  uint32_t passes;         // that came to their end
  uint32_t passes_needed;  // in a row, before a sample is called unreachable
  uint32_t failed;         // passes that did not come to their end
  uint32_t mode;           // ReachMode
  uint32_t error;          // ReachError
  int32_t system_error;    // errno or a signal
  uint32_t threads;        // whose registers were seen
  uint32_t threads_unseen;
  uint64_t start_mono;
  uint64_t pause_ns;  // for which threads were stopped, `fork_ns` included
  uint64_t fork_ns;   // for which the copy was made
  uint64_t scan_ns;
  uint64_t bytes_scanned;
  uint64_t bytes_unread;  // that could not be read
  uint64_t extra_bytes;   // of memory that the pass cost at most, its tables included
  uint64_t objects;       // samples that were looked for
  uint64_t unreachable;   // of these in this pass, indirect ones included
  uint64_t indirect;
  uint64_t called;         // that have been unreachable in `passes_needed` passes in a row
  uint32_t kernel_unseen;  // 1: what epoll and timers refer to was not seen
  uint32_t unused;
};

struct Header {
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes;  // sizeof(Header)
  uint32_t state;         // State; the publishing word of the whole box
  uint32_t region_count;
  uint64_t file_bytes;
  Region regions[kRegionCount];

  // The process. `pid` counts in the PID namespace whose inode is `pid_namespace`; together with
  // `start_ticks` (/proc/PID/stat, field 22) it tells whether the process still lives.
  uint32_t pid;
  uint32_t uid;
  uint64_t pid_namespace;
  uint64_t start_ticks;
  uint64_t start_utc;   // of the process
  uint64_t opened_utc;  // of the box
  uint64_t opened_mono;
  uint8_t boot_id[16];         // of /proc/sys/kernel/random/boot_id
  char program[kNameBytes];    // basename of the executable, zero-padded
  char recorder_version[16];   // zero-padded
  uint32_t executable_module;  // index of the main program's module
  uint32_t max_frames;         // frames kept per stack
  // The sample interval: bytes, 1 = every allocation, 0 = off; as configured and at present
  // (thinned, or changed).
  uint64_t configured_interval;
  uint64_t interval;
  uint64_t unused_before[5];  // what changes begins a cache line

  // Counters and state that change. One writer at a time unless said otherwise.
  alignas(64) uint64_t heartbeat_mono;  // last sign of life of the recorder's own thread
  uint64_t heartbeat_utc;
  uint32_t dumps;          // profiles written
  uint32_t sample_levels;  // levels of kSamples in use
  // A futex that another process (`heapflare snapshot`) adds 1 to and wakes, to make the recorder
  // look at its control file.
  uint32_t doorbell;
  uint32_t unused;
  Losses losses;
  uint64_t unused_after[5];  // and so do the tallies
  // The process's totals are the sums over these. Threads add to different ones, each to that of
  // its number, so that they do not fight for a cache line. (A block allocated here and freed there
  // makes a single difference negative; the sums are right.)
  Tally tallies[kTallies];
  Reach reach;
  // When the columns of kGrowth were filled; in no order, 0: empty. See lib/box/growth.h.
  uint64_t growth_mono[kGrowthColumns];
};

// Samples: a hash table in kSampleLevels levels, level i with 4^i times the slots of level 0, so
// that few samples touch few pages. A sample sits in one of the kSampleWindow slots that follow its
// home slot (wrapping round) in some level.
inline constexpr uint32_t kSampleLevels = 4;
inline constexpr uint32_t kSampleShares = 85;  // 1 + 4 + 16 + 64
inline constexpr uint32_t kSampleWindow = 64;
inline constexpr uint64_t kSampleClaimed = 1;

struct Sample {
  uint64_t address;
  uint64_t size_and_marks;  // bytes asked for, and what the search for unreachable blocks found
  uint64_t weight;          // objects that it stands for, in 1/65536
  uint32_t stack;           // index
  uint32_t born_tenths;     // of a second after Header.opened_mono
};

// Sample.size_and_marks, from the lowest bit:
//   48 bits  the size; no block of a process on x86_64 or aarch64 is larger
//    8 bits  passes in a row that found no reference to the block; the last pass that found one
//            made it 0, and 255 stays 255
//    1 bit   indirect: the last pass found references in other unreachable samples, and only there
//    1 bit   called: it was unreachable in Reach.passes_needed passes in a row, once. It stays set:
//            the block's free then proves that the verdict was wrong (Stack.false_leaks)
//    1 bit   ignored: the program said that the block is no leak, nor what it leads to; of a leak
//            check's own books only
// A slot that is filled anew has no marks. They are set by compare-and-swap by the recorder's
// thread alone.
inline constexpr int kSizeBits = 48;
inline constexpr uint64_t kLargestSize = (uint64_t{1} << kSizeBits) - 1;
inline constexpr uint32_t kMostPasses = 255;
inline constexpr uint64_t kMarkIndirect = uint64_t{1} << 56;
inline constexpr uint64_t kMarkCalled = uint64_t{1} << 57;
inline constexpr uint64_t kMarkIgnored = uint64_t{1} << 58;

constexpr uint64_t SizeOf(const Sample& sample) { return sample.size_and_marks & kLargestSize; }
constexpr uint32_t UnreachablePasses(const Sample& sample) {
  return static_cast<uint32_t>(sample.size_and_marks >> kSizeBits) & kMostPasses;
}
constexpr bool IsIndirect(const Sample& sample) {
  return (sample.size_and_marks & kMarkIndirect) != 0;
}
constexpr bool WasCalledUnreachable(const Sample& sample) {
  return (sample.size_and_marks & kMarkCalled) != 0;
}
constexpr bool IsIgnored(const Sample& sample) {
  return (sample.size_and_marks & kMarkIgnored) != 0;
}
// The word of a new sample, and the same with other marks.
constexpr uint64_t WithoutMarks(uint64_t size) { return size < kLargestSize ? size : kLargestSize; }
constexpr uint64_t WithPasses(uint64_t size_and_marks, uint32_t passes) {
  return (size_and_marks & ~(uint64_t{kMostPasses} << kSizeBits)) |
         uint64_t{passes < kMostPasses ? passes : kMostPasses} << kSizeBits;
}

enum class ModuleState : uint32_t {
  kUnpublished = 0,
  kLoaded = 1,
  kUnloaded = 2,  // no longer mapped, or not there; its locations stay valid
};

// One executable segment, as /proc/PID/maps shows it.
struct Module {
  uint32_t state;  // ModuleState; the publishing word
  uint32_t build_id_bytes;
  uint64_t start;
  uint64_t limit;
  uint64_t file_offset;
  uint32_t path_offset;  // in kStrings; "[vdso]", "[anon]" for memory without a file
  uint32_t path_bytes;
  uint64_t device;  // major << 32 | minor
  uint64_t inode;
  uint8_t build_id[kBuildIdBytes];
};

enum LocationFlags : uint32_t {
  // Another record may have the same pc and module: this one is not known yet to be the one that the
  // writer's index leads to, or it got its module later. A reader that wants each place once has to
  // look (IsTwin, reader.h).
  kLocationMayBeTwin = 1,
};

struct Location {
  uint64_t pc;  // a return address; the publishing word
  uint32_t module_plus_one;
  uint32_t flags;  // LocationFlags
};

enum StackFlags : uint32_t {
  kStackTruncated = 1,   // deeper than max_frames: the outermost frames are missing
  kStackIncomplete = 2,  // the unwinder stopped early (foreign stack, no unwind information)
  kStackOther = 4,       // stands for all stacks that found no room; it has no frames
};

struct Stack {
  uint32_t depth;  // frames + 1; the publishing word
  uint32_t flags;  // StackFlags
  uint64_t first_frame;
  uint64_t hash;
  uint64_t allocated_objects;  // 1/65536 each
  uint64_t allocated_bytes;    // 1/256 each
  uint64_t freed_objects;
  uint64_t freed_bytes;
  // Samples that were called unreachable and freed later: each proves that for this stack the search
  // does not see all references.
  uint64_t false_leaks;
};

// A stack's live bytes, one value per column, as lib/box/growth.h packs them: of any 16 bits there is
// a number of bytes.
struct GrowthRecord {
  uint16_t live[kGrowthColumns];
};

// One look at memory. Bytes; kUnknown where it could not be read.
inline constexpr uint64_t kUnknown = ~uint64_t{0};

struct TimelinePoint {
  uint64_t sequence;
  uint64_t time_mono;
  uint64_t usage;  // what the cgroup charges
  uint64_t limit;  // kUnknown: none
  uint64_t working_set;
  uint64_t anonymous;
  uint64_t file;
  uint64_t shared;  // shmem and tmpfs
  uint64_t kernel;
  uint64_t resident;   // of this process
  uint64_t live_heap;  // estimate, bytes
  uint64_t oom_kills;  // counter of the cgroup
};

enum class EventKind : uint32_t {
  kNone = 0,
  kDump = 1,             // a = number, b = bytes of the file, c = nanoseconds it took
  kDumpFailed = 2,       // a = number, b = errno
  kRung = 3,             // a = the rung (bytes), b = what was measured, c = effective limit
  kStraw = 4,            // a = bytes asked for, b = headroom, c = stack
  kIntervalChanged = 5,  // a = before, b = after
  kThinned = 6,          // a = interval before, b = after, c = live samples
  kRegionFull = 7,       // a = RegionId
  kLimitChanged = 8,     // a = before, b = after
  kCredentials = 9,      // a = user id that the recorder's thread took over from the service
  kReach =
      10,  // a pass: a = ReachMode << 32 | ReachError, b = ns of pause, c = unreachable samples
};

struct Event {
  uint64_t sequence;
  uint64_t time_mono;
  uint32_t kind;  // EventKind
  uint32_t unused;
  uint64_t a;
  uint64_t b;
  uint64_t c;
  uint64_t usage;  // the cgroup's at that moment; kUnknown
  char text[40];   // the reason of a dump ("rung-90pct"), zero-padded
};

static_assert(sizeof(Header) <= 4096, "the first region starts on the second page");
static_assert(sizeof(Sample) == 32 && sizeof(Module) == 88 && sizeof(Location) == 16);
static_assert(sizeof(Stack) == 64 && sizeof(TimelinePoint) == 96 && sizeof(Event) == 96);
static_assert(sizeof(GrowthRecord) == 32);

}  // namespace heapflare::box
