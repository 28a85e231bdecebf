// For the leak sanitizer, which must be able to tell MPI's leaks, named in tests/support/lsan.supp,
// from ours. Linked into programs of the address sanitizer's build only.

// MPI unloads its plugins before the process ends; code that is gone has no name.
extern "C" int dlclose(void* library);
extern "C" int dlclose(void*) {
  return 0;
}

// Through callers without frame pointers, too: the C library's.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "fast_unwind_on_malloc=0";
}
