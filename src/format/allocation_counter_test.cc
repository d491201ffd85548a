// In a file of its own: where the replaced operators are inlined, the compiler takes their malloc
// and free for mistakes.
#include "format/allocation_counter_test.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {
thread_local size_t total = 0, largest = 0;
}  // namespace

#ifndef BAKESTONE_SANITIZED
void* operator new(size_t size) {
  total += size;
  largest = std::max(largest, size);
  if (void* data = std::malloc(size)) return data;
  throw std::bad_alloc();
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, size_t) noexcept { std::free(data); }
#endif

namespace bakestone {

void ResetAllocations() { total = largest = 0; }
size_t TotalAllocated() { return total; }
size_t LargestAllocation() { return largest; }

}  // namespace bakestone
