// A program with a malloc of its own: preloading cannot reach it. It must run on untouched, and be
// told so in one line.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static _Alignas(16) unsigned char memory[16 << 20];
static size_t used;
static long calls;

void* malloc(size_t size) {
  ++calls;
  const size_t room = (size + 31) / 16 * 16;
  if (room < size || room > sizeof(memory) - used) return NULL;
  unsigned char* const block = memory + used + 16;
  *(size_t*)(void*)(block - 16) = size;
  used += room;
  return block;
}
void free(void* block) { (void)block; }
void* calloc(size_t count, size_t size) { return malloc(count * size); }
void* realloc(void* block, size_t size) {
  void* const moved = malloc(size);
  if (block != NULL && moved != NULL) {
    const size_t old = *(size_t*)(void*)((char*)block - 16);
    memcpy(moved, block, old < size ? old : size);
  }
  return moved;
}

int main(void) {
  const long before = calls;
  char* text = NULL;
  for (size_t i = 1; i < 1000; ++i) {
    text = realloc(text, i);
    memset(text, 'x', i);
    free(malloc(i));
  }
  printf("calls %ld, own %d\n", calls - before,
         (unsigned char*)text > memory && (unsigned char*)text < memory + sizeof(memory));
  return 3;
}
