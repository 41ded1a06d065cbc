#include "lib/recorder/elf_image.h"

#include <algorithm>
#include <cstring>

#include "lib/recorder/own_memory.h"

namespace heapflare::recorder {

bool ReadElfImage(uint64_t base, ElfImage* image) {
  ElfW(Ehdr) header = {};
  if (!ReadOwnMemory(base, &header, sizeof(header)) ||
      memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phentsize != sizeof(ElfW(Phdr))) {
    return false;
  }
  image->header_count = std::min<int>(header.e_phnum, ElfImage::kMaxHeaders);
  if (!ReadOwnMemory(base + header.e_phoff, image->headers,
                     static_cast<size_t>(image->header_count) * sizeof(ElfW(Phdr)))) {
    return false;
  }
  // The segment that begins with the file is mapped at `base`, rounded down to a page.
  for (int i = 0; i < image->header_count; ++i) {
    const ElfW(Phdr)& segment = image->headers[i];
    if (segment.p_type == PT_LOAD && segment.p_offset == 0) {
      image->bias = base - segment.p_vaddr;
      return true;
    }
  }
  return false;
}

uint32_t ReadBuildId(const ElfImage& image, uint8_t* build_id, uint32_t capacity,
                     uint64_t* address) {
  for (int i = 0; i < image.header_count; ++i) {
    if (image.headers[i].p_type != PT_NOTE) continue;
    char notes[1024];
    const size_t bytes = std::min<size_t>(image.headers[i].p_memsz, sizeof(notes));
    if (!ReadOwnMemory(image.bias + image.headers[i].p_vaddr, notes, bytes)) continue;
    // Notes are padded to 4 bytes, also where the segment's alignment is 8 (only properties are,
    // and they come first with lengths that are multiples of 8).
    for (size_t at = 0; at + sizeof(ElfW(Nhdr)) <= bytes;) {
      ElfW(Nhdr) note = {};
      memcpy(&note, notes + at, sizeof(note));
      const size_t name = at + sizeof(note);
      const size_t description = name + ((size_t{note.n_namesz} + 3) & ~size_t{3});
      const size_t end = description + ((size_t{note.n_descsz} + 3) & ~size_t{3});
      if (end > bytes || end <= at) break;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
          memcmp(notes + name, "GNU", 4) == 0) {
        const uint32_t length = std::min<uint32_t>(note.n_descsz, capacity);
        memcpy(build_id, notes + description, length);
        *address = image.bias + image.headers[i].p_vaddr + description;
        return length;
      }
      at = end;
    }
  }
  return 0;
}

}  // namespace heapflare::recorder
