// What a host function asks about the device and sets for a kernel.
#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "limits.h"
#include "report.h"
#include "settings.h"

namespace cuda_emulator {
namespace {

std::mutex mutex;
std::map<const void*, size_t> dynamic_limits;  // of kernels that asked for more

}  // namespace

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<size_t>(value) > settings().shared_limit) return cudaErrorInvalidValue;
  const std::lock_guard lock(mutex);
  dynamic_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

size_t dynamic_limit(const void* kernel) {
  const std::lock_guard lock(mutex);
  const auto found = dynamic_limits.find(kernel);
  return found == dynamic_limits.end() ? kSharedWithoutAsking : std::max(found->second, kSharedWithoutAsking);
}

cudaError_t device_attribute(int* value, cudaDeviceAttr attribute) {
  *value =
      attribute == cudaDevAttrMultiProcessorCount ? settings().processors : static_cast<int>(settings().shared_limit);
  return cudaSuccess;
}

// Registers and static shared memory are not counted, of which the emulator knows nothing.
cudaError_t occupancy(int* blocks, int threads, size_t shared) {
  constexpr int kThreadsOfProcessor = 1536, kMostBlocksOfProcessor = 16;
  constexpr size_t kReserved = 1024;  // for each block
  const int by_threads = threads > 0 ? kThreadsOfProcessor / threads : 0;
  const int by_memory = static_cast<int>((settings().shared_limit + kReserved) / (shared + kReserved));
  *blocks = std::min({by_threads, by_memory, kMostBlocksOfProcessor});
  return cudaSuccess;
}

void check(cudaError_t code, const char* call, Site site) {
  if (code == cudaSuccess) return;
  throw std::runtime_error("cuda_emulator: CUDA error " + std::to_string(code) + " (invalid value) of " + call +
                           " at " + name_of(site));
}

}  // namespace cuda_emulator
