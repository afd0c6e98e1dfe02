// What the environment says, read once; a test may change it between launches (cuda_emulator_set).
#pragma once

#include <cstddef>
#include <string>

namespace cuda_emulator {

struct Settings {
  long seed;            // CUDA_EMULATOR_SEED: threads and blocks in ascending (0), descending (-1) or a shuffled order
  long preempt;         // CUDA_EMULATOR_PREEMPT: n > 0 also switches threads at one of n watched accesses
  size_t shared_limit;  // CUDA_EMULATOR_SHARED: most bytes of shared memory of a block
  int processors;       // CUDA_EMULATOR_PROCESSORS: multiprocessors, which kernels plan with
  std::string skip;     // CUDA_EMULATOR_SKIP: file.cu:line of a barrier that is left out
  bool stats;           // CUDA_EMULATOR_STATS: prints counts when the process ends
  bool trace;           // CUDA_EMULATOR_TRACE: prints every launch
};

// Throws std::runtime_error at the first call if the environment holds a value that is no number.
const Settings& settings();

}  // namespace cuda_emulator

// Sets one by its name without CUDA_EMULATOR_. Returns 0; 1 for an unknown name, or a value that is no number.
extern "C" __attribute__((visibility("default"))) int cuda_emulator_set(const char* name, const char* value);
