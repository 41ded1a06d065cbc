// What the compiler's code asks of a C++ runtime, which the recorder is linked without.

extern "C" {

// Called through a vtable slot that no class ever leaves empty.
[[noreturn]] __attribute__((visibility("hidden"))) void __cxa_pure_virtual() { __builtin_trap(); }
}

namespace std {

// Called by string_view::substr for a position past the end, which no caller of ours passes.
[[noreturn]] __attribute__((visibility("hidden"))) void __throw_out_of_range_fmt(
    const char* /*format*/, ...) {
  __builtin_trap();
}

}  // namespace std
