// A barrier left out on purpose: what notices?
#pragma once

#include <cuda_emulator/runtime.h>

namespace cuda_emulator {

// Whether CUDA_EMULATOR_SKIP names this place; counts it.
bool is_left_out(const Site& site);

}  // namespace cuda_emulator
