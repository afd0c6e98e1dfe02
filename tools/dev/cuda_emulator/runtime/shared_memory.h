// The running block's shared memory.
#pragma once

#include <cuda_emulator/runtime.h>

namespace cuda_emulator {

struct SharedVariable {
  const void* key;  // null for the dynamic memory
  const char* name;
  char* begin;
  size_t size;
};

// A launch begins with so much dynamic memory, each of its blocks finds all shared memory unwritten, and it ends.
void begin_shared(size_t dynamic_bytes);
void forget_shared_values();
void end_shared();

// The variable that holds [at, at + size), or null.
const SharedVariable* shared_variable_at(const void* at, size_t size);

// Where a variable of `size` bytes may lie, 64-byte aligned; `drop_shared_room` gives all of it back.
char* take_shared_room(size_t size);
void drop_shared_room();

}  // namespace cuda_emulator
