// What the running launch did to every four bytes of the arena, or to single bytes of them.
#pragma once

#include <cstddef>

#include "access_set.h"

namespace cuda_emulator::shadow {

enum class Kind { kRead, kWrite, kAtomic };
const char* name_of(Kind kind);

// Two accesses of one place without an order between them; `earlier.there` is false if there is no such.
struct Race {
  Access earlier;
  Kind earlier_kind;
};

void begin_launch();
void begin_block();  // shared memory begins anew

// Notes an access of the arena by the running thread, and returns the race that it makes.
Race note(const void* at, size_t size, Kind kind, const Access& access);

}  // namespace cuda_emulator::shadow
