// The contract of the C functions of the malloc family, as observations: one line each, no
// addresses, so that two runs can be compared. Built with -fno-builtin: the compiler must not know
// what malloc promises.
//
//   c_contract            everything
//   c_contract pvalloc    pvalloc only, which some allocators lack
#include <errno.h>
#include <malloc.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// C23; glibc has them since 2.42.
__attribute__((weak)) void free_sized(void* block, size_t size);
__attribute__((weak)) void free_aligned_sized(void* block, size_t alignment, size_t size);

static const char* ErrnoName(int error) {
  switch (error) {
    case 0:
      return "0";
    case EINVAL:
      return "EINVAL";
    case ENOMEM:
      return "ENOMEM";
    case EXDEV:
      return "untouched";
    default:
      return "other";
  }
}

static void Fill(void* block, size_t size, int seed) {
  for (size_t i = 0; i < size; ++i)
    ((unsigned char*)block)[i] = (unsigned char)(i * 7 + (size_t)seed);
}

static int Holds(const void* block, size_t size, int seed) {
  for (size_t i = 0; i < size; ++i) {
    if (((const unsigned char*)block)[i] != (unsigned char)(i * 7 + (size_t)seed)) return 0;
  }
  return 1;
}

// Prints what a request returned, and gives the block back.
static void Report(const char* call, void* block, size_t size, size_t alignment) {
  const int error = errno;
  if (block == NULL) {
    printf("%s: NULL errno %s\n", call, ErrnoName(error));
    return;
  }
  const int aligned = (uintptr_t)block % alignment == 0;
  const int usable = malloc_usable_size(block) >= size;
  if (size < (size_t)1 << 26) memset(block, 0x5a, size);
  printf("%s: block aligned %d usable %d errno %s\n", call, aligned, usable, ErrnoName(error));
  free(block);
}

static void* PosixMemalign(size_t alignment, size_t size) {
  void* block = (void*)0x77;
  const int error = posix_memalign(&block, alignment, size);
  if (error != 0) {
    printf("  posix_memalign returns %s, its pointer is %s\n", ErrnoName(error),
           block == (void*)0x77 ? "untouched" : "changed");
    return NULL;
  }
  return block;
}

#define TRY(alignment, size, ...)                 \
  do {                                            \
    errno = EXDEV;                                \
    void* const tried = __VA_ARGS__;              \
    Report(#__VA_ARGS__, tried, size, alignment); \
  } while (0)

static void Sizes(void) {
  const size_t most = alignof(max_align_t);
  TRY(most, 0, malloc(0));
  TRY(most, 0, calloc(0, 8));
  TRY(most, 0, calloc(8, 0));
  TRY(most, 0, realloc(NULL, 0));
  TRY(most, 0, reallocarray(NULL, 0, 8));
  TRY(16, 0, aligned_alloc(16, 0));
  TRY(64, 0, memalign(64, 0));
  TRY(64, 0, PosixMemalign(64, 0));
  TRY(4096, 0, valloc(0));
  // Too large for anything, and so close to it that rounding up overflows.
  volatile size_t huge[] = {(size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096,
                            SIZE_MAX - 1, SIZE_MAX};
  for (size_t i = 0; i < sizeof(huge) / sizeof(*huge); ++i) {
    printf("huge %zu\n", i);
    TRY(most, 0, malloc(huge[i]));
    TRY(most, 0, calloc(1, huge[i]));
    TRY(most, 0, calloc(huge[i], 1));
    TRY(most, 0, calloc(huge[i], 2));
    TRY(most, 0, realloc(NULL, huge[i]));
    TRY(most, 0, reallocarray(NULL, huge[i], 1));
    TRY(most, 0, reallocarray(NULL, huge[i], 2));
    TRY(most, 0, aligned_alloc(64, huge[i]));
    TRY(most, 0, memalign(64, huge[i]));
    TRY(most, 0, PosixMemalign(64, huge[i]));
    TRY(most, 0, valloc(huge[i]));
  }
  volatile size_t half = (size_t)1 << 33;
  TRY(most, 0, calloc(half, half));
  TRY(most, 0, reallocarray(NULL, half, half));
}

static void Alignments(void) {
  const size_t sizes[] = {1,  7,   8,    15,   16,   17,   24,    31,     33,      63,
                          64, 100, 1000, 4095, 4096, 5000, 32768, 100000, 1 << 20, 3 << 20};
  int natural = 1, asked = 1, usable = 1;
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    const size_t size = sizes[i];
    const size_t least = size >= 16 ? alignof(max_align_t) : size >= 8 ? 8 : 1;
    void* plain[] = {malloc(size), calloc(1, size), realloc(NULL, size),
                     reallocarray(NULL, size, 1)};
    for (size_t j = 0; j < 4; ++j) {
      natural &= (uintptr_t)plain[j] % least == 0;
      usable &= malloc_usable_size(plain[j]) >= size;
      memset(plain[j], 1, malloc_usable_size(plain[j]));
      free(plain[j]);
    }
    for (size_t alignment = 8; alignment <= (size_t)1 << 21; alignment *= 2) {
      void* of[] = {aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment),
                    memalign(alignment, size), PosixMemalign(alignment, size)};
      for (size_t j = 0; j < 3; ++j) {
        asked &= of[j] != NULL && (uintptr_t)of[j] % alignment == 0;
        usable &= malloc_usable_size(of[j]) >= size;
        memset(of[j], 1, size);
        free(of[j]);
      }
    }
    void* page = valloc(size);
    asked &= (uintptr_t)page % 4096 == 0;
    free(page);
  }
  printf("alignment natural %d asked %d usable %d\n", natural, asked, usable);

  volatile size_t far = (size_t)1 << 30;
  TRY(far, 1, memalign(far, 1));
  TRY(far, 1, PosixMemalign(far, 1));
  volatile size_t farther[] = {(size_t)1 << 47, (size_t)1 << 62, (size_t)1 << 63};
  for (size_t i = 0; i < 3; ++i) {
    printf("alignment too large %zu\n", i);
    TRY(1, 1, memalign(farther[i], 1));
    TRY(1, 1, PosixMemalign(farther[i], 1));
    TRY(1, 1, aligned_alloc(farther[i], farther[i]));
  }
  volatile size_t wrong[] = {0, 1, 2, 3, 4, 24, 48, 4095, SIZE_MAX};
  for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); ++i) {
    printf("alignment wrong %zu\n", i);
    TRY(1, 64, PosixMemalign(wrong[i], 64));
    TRY(1, 64, aligned_alloc(wrong[i], 64));
    // Of memalign it is undefined; glibc rounds up.
    if (wrong[i] == 24 || wrong[i] == 48) TRY(1, 64, memalign(wrong[i], 64));
  }
  TRY(64, 100, aligned_alloc(64, 100));
}

static void Reallocs(void) {
  const size_t sizes[] = {1, 24, 100, 1000, 5000, 100000, 200000, 1 << 20};
  const size_t count = sizeof(sizes) / sizeof(*sizes);
  int kept = 1;
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < count; ++j) {
      char* block = realloc(NULL, sizes[i]);
      Fill(block, sizes[i], 3);
      block = i % 2 ? realloc(block, sizes[j]) : reallocarray(block, sizes[j], 1);
      kept &= Holds(block, sizes[i] < sizes[j] ? sizes[i] : sizes[j], 3);
      Fill(block, sizes[j], 5);
      block = realloc(block, sizes[j]);
      kept &= Holds(block, sizes[j], 5);
      free(block);
    }
  }
  // A byte at a time, with other blocks between: in place, and moving.
  char* grown = NULL;
  char* between[2000];
  for (size_t i = 1; i <= 2000; ++i) {
    grown = realloc(grown, i * 13);
    Fill(grown + (i - 1) * 13, 13, (int)i);
    between[i - 1] = malloc(i);
  }
  for (size_t i = 1; i <= 2000; ++i) {
    kept &= Holds(grown + (i - 1) * 13, 13, (int)i);
    free(between[i - 1]);
  }
  for (size_t i = 2000; i >= 1; i /= 2) {
    grown = realloc(grown, i * 13);
    kept &= Holds(grown + (i - 1) * 13, 13, (int)i);
  }
  // A block that is aligned more than malloc's.
  char* aligned = memalign(1024, 300);
  Fill(aligned, 300, 9);
  grown = realloc(grown, 1);
  aligned = realloc(aligned, 70000);
  kept &= Holds(aligned, 300, 9);
  free(aligned);
  printf("realloc kept contents %d\n", kept);

  // Failure leaves the block.
  volatile size_t too_large = (size_t)PTRDIFF_MAX - 100, half = (size_t)1 << 33;
  char* block = malloc(777);
  Fill(block, 777, 1);
  for (int round = 0; round < 3; ++round) {
    errno = EXDEV;
    void* const moved = round == 0   ? realloc(block, too_large)
                        : round == 1 ? reallocarray(block, half, half)
                                     : reallocarray(block, too_large, 1);
    printf("failed realloc: %s errno %s, block holds %d usable %d\n", moved == NULL ? "NULL" : "?",
           ErrnoName(errno), Holds(block, 777, 1), malloc_usable_size(block) >= 777);
  }
  block = realloc(block, 888);
  printf("afterwards it grows: %d\n", Holds(block, 777, 1));
  free(block);

  // To zero: the block is gone, or there is a new one.
  for (int round = 0; round < 2; ++round) {
    block = malloc(50);
    errno = EXDEV;
    block = round == 0 ? realloc(block, 0) : reallocarray(block, 0, 5);
    printf("to zero: %s errno %s\n", block == NULL ? "NULL" : "block", ErrnoName(errno));
    free(block);
  }
  free(grown);
}

static void Errno(void) {
  int kept = 1;
  for (size_t size = 1; size <= (size_t)16 << 20; size *= 8) {
    void* const blocks[] = {malloc(size), calloc(size, 1), memalign(256, size),
                            realloc(NULL, size)};
    for (size_t i = 0; i < 4; ++i) {
      errno = EXDEV;
      free(blocks[i]);
      kept &= errno == EXDEV;
    }
    errno = EXDEV;
    void* const block = malloc(size);
    printf("malloc(%zu): errno %s\n", size, ErrnoName(errno));
    free(block);
  }
  errno = EXDEV;
  free(NULL);
  kept &= errno == EXDEV;
  printf("free keeps errno %d\n", kept);
  printf("usable size of NULL %zu\n", malloc_usable_size(NULL));
}

static void Zeroes(void) {
  int zero = 1;
  for (size_t size = 1; size <= (size_t)1 << 20; size = size * 3 + 1) {
    for (int round = 0; round < 3; ++round) {
      unsigned char* dirty[8];
      for (int i = 0; i < 8; ++i) memset(dirty[i] = malloc(size), 0xff, size);
      for (int i = 0; i < 8; ++i) free(dirty[i]);
      for (int i = 0; i < 8; ++i) {
        dirty[i] = round == 0 ? calloc(size, 1) : calloc(1, size);
        for (size_t j = 0; j < size; ++j) zero &= dirty[i][j] == 0;
      }
      for (int i = 0; i < 8; ++i) free(dirty[i]);
    }
  }
  printf("calloc zeroes %d\n", zero);
}

static void Sized(void) {
  for (size_t size = 1; size < 100000; size *= 3) {
    void* block = malloc(size);
    if (free_sized != NULL) {
      free_sized(block, size);
    } else {
      free(block);
    }
    block = aligned_alloc(128, size * 128);
    if (free_aligned_sized != NULL) {
      free_aligned_sized(block, 128, size * 128);
    } else {
      free(block);
    }
  }
  if (free_sized != NULL) free_sized(NULL, 10);
  printf("sized frees done\n");
}

static void Strings(void) {
  char* text = strdup("strdup");
  char* part = strndup("strndup", 4);
  char* printed = NULL;
  const int length = asprintf(&printed, "%s-%s-%d", text, part, 42);
  printf("%s %s %s %d\n", text, part, printed, length);
  free(text);
  free(part);
  free(printed);

  char* line = NULL;
  size_t room = 0;
  char source[5000];
  memset(source, 'x', sizeof(source));
  source[99] = source[4998] = '\n';
  FILE* file = fmemopen(source, sizeof(source) - 1, "r");
  while (getline(&line, &room, file) > 0) printf("line of %zu\n", strlen(line));
  fclose(file);
  free(line);

  char* memory = NULL;
  size_t written = 0;
  file = open_memstream(&memory, &written);
  for (int i = 0; i < 1000; ++i) fprintf(file, "%d ", i);
  fclose(file);
  printf("memstream %zu\n", written);
  free(memory);
  char* path = realpath("/proc/self/../self/.", NULL);
  printf("realpath %d\n", path != NULL);
  free(path);
}

// Random operations on blocks of which every byte is checked.
static void Storm(void) {
  enum { kBlocks = 500 };
  static struct {
    unsigned char* block;
    size_t size;
  } held[kBlocks];
  uint64_t state = 12345;
  int intact = 1;
  for (int i = 0; i < 15000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const int at = (int)((state >> 33) % kBlocks);
    const size_t size = (state >> 20) % (1u << ((state >> 50) % 15)) + 1;
    unsigned char** block = &held[at].block;
    if (*block != NULL) intact &= Holds(*block, held[at].size, at);
    switch ((state >> 40) % 6) {
      case 0:
        free(*block);
        *block = malloc(size);
        break;
      case 1:
        free(*block);
        *block = calloc(size, 1);
        break;
      case 2:
        *block = realloc(*block, size);
        break;
      case 3:
        *block = reallocarray(*block, size, 1);
        break;
      case 4:
        free(*block);
        *block = memalign((size_t)16 << (state >> 60), size);
        break;
      default:
        free(*block);
        *block = PosixMemalign(64, size);
        break;
    }
    held[at].size = size;
    Fill(*block, size, at);
  }
  for (int i = 0; i < kBlocks; ++i) free(held[i].block);
  printf("storm intact %d\n", intact);
}

static void Pvalloc(void) {
  volatile size_t sizes[] = {0, 1, 4096, 4097, 100000, SIZE_MAX - 5, SIZE_MAX - 4095};
  for (size_t i = 0; i < 7; ++i) TRY(4096, sizes[i] < 1u << 20 ? sizes[i] : 0, pvalloc(sizes[i]));
  void* block = pvalloc(1);
  printf("a whole page %d\n", malloc_usable_size(block) >= 4096);
  free(block);
}

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc > 1 && strcmp(argv[1], "pvalloc") == 0) {
    Pvalloc();
    return 0;
  }
  Sizes();
  Alignments();
  Reallocs();
  Errno();
  Zeroes();
  Sized();
  Strings();
  Storm();
  return 0;
}
