// Keeps a pointer in storage that each thread gets when it first uses it.
static __thread void* volatile kept;

void Keep(void* pointer) { kept = pointer; }
