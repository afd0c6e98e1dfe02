// Where every access that the compiler has instrumented arrives.
#pragma once

#include "shadow.h"

namespace cuda_emulator::watch {

// `caller` is the address of the code that makes the access.
void access(const void* at, size_t size, shadow::Kind kind, const void* caller);

}  // namespace cuda_emulator::watch
