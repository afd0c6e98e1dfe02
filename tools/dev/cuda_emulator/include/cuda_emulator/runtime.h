// What translated kernels and host functions call: launches, barriers, warp operations, shared memory. Free of torch.
// Errors are std::runtime_error, thrown by the launch; they name the kernel, the file, the line and the thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};

using cudaStream_t = struct EmulatedStream*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };

namespace cuda_emulator {

// A place in the source. Files are compared by their text: the same line may be compiled into several units.
struct Site {
  const char* file;
  int line;
};

// threadIdx, blockIdx, blockDim and gridDim of the thread that runs.
struct Indices {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern Indices indices;

// ---- launches

struct Kernel {
  const char* name;
  const void* address;  // null where no attribute of the kernel is ever set
  Site site;            // of the launch
};

// What stands between <<< and >>>. A launch that names no stream goes to the legacy default stream, as in CUDA.
struct Config {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
  Config(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = nullptr)
      : grid(grid), block(block), shared(shared), stream(stream) {}
};

// Runs `body(frame)` in every thread of the grid, one block after the other. The frame holds the kernel's arguments.
void run(const Kernel& kernel, const Config& config, const void* frame, size_t frame_size, void (*body)(const void*));

template <typename Call, typename... Args>
void launch(const Kernel& kernel, const Config& config, const Call& call, const Args&... args) {
  static_assert((std::is_trivially_copyable_v<Args> && ...), "CUDA copies a kernel's arguments as bytes");
  struct Frame {
    Call call;
    std::tuple<Args...> args;
  };
  const Frame frame{call, std::tuple<Args...>(args...)};
  run(kernel, config, &frame, sizeof(frame), [](const void* at) {
    const auto* given = static_cast<const Frame*>(at);
    std::apply(given->call, given->args);
  });
}

// The stream that torch's current stream stands for.
cudaStream_t current_stream();

// A launch is legal only while the host holds a device guard.
struct GuardedScope {
  GuardedScope();
  ~GuardedScope();
  GuardedScope(const GuardedScope&) = delete;
};

// Throws for any code but cudaSuccess.
void check(cudaError_t code, const char* call, Site site);

// ---- within a kernel

// Memory of a __shared__ variable, of the running block. `key` tells the variables of template instantiations apart.
void* shared_variable(const void* key, const char* name, size_t size, size_t align, Site site);

template <typename T>
T& shared(const void* key, const char* name, Site site) {
  return *static_cast<T*>(shared_variable(key, name, sizeof(T), alignof(T), site));
}

// What `extern __shared__` names.
void* dynamic_shared(Site site);

// Waits for all threads of the block; returns whether any of them gave true.
bool sync_threads(Site site, bool predicate = false);

enum class WarpOp { kSync, kBallot, kShuffle, kShuffleDown, kShuffleXor, kMatchAny };

// One lane's part in an operation of its warp: waits for every lane of the mask, and returns the lane's result.
uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int argument, Site site);

// An atomic operation is about to be made by the code at `caller`.
void touch_atomically(void* address, size_t size, const void* caller);

template <typename T>
uint64_t bits_of(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "warp operations take values of at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// ---- attributes

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t device_attribute(int* value, cudaDeviceAttr attribute);
cudaError_t occupancy(int* blocks, int threads, size_t shared);

}  // namespace cuda_emulator
