// A library with static thread-local storage, of which a running process has little to give.
// conformance_test.py makes copies of it.
static __thread char storage[256] __attribute__((tls_model("initial-exec")));

// Else the compiler would leave it out.
char* TlsStorage(void) { return storage; }
