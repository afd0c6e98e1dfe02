// A launch: what CUDA would refuse is refused, then the blocks run one after the other.
#include <chrono>
#include <cstdio>
#include <mutex>
#include <stdexcept>

#include "counts.h"
#include "limits.h"
#include "report.h"
#include "schedule.h"
#include "settings.h"
#include "shared_memory.h"
#include "watch.h"

namespace cuda_emulator {
namespace {

// Backward passes launch from torch's threads.
std::mutex one_launch;
thread_local int guards = 0;

std::string text_of(const dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

// What is wrong with the launch, or nothing.
std::string refusal(const Kernel& kernel, const Config& config) {
  const dim3 &grid = config.grid, &block = config.block;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (config.stream != current_stream())
    return "launched on the legacy default stream, not on torch's current one: give <<<>>> all four arguments, the "
           "last "
           "of them c10::cuda::getCurrentCUDAStream()";
  if (guards == 0) return "launched without a device guard: begin the host function with DeviceGuard";
  if (threads == 0 || threads > kMostThreads || block.z > kMostThreadsDeep)
    return "a block of " + text_of(block) + " threads; it must have 1 to " + std::to_string(kMostThreads);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0)
    return "a grid of " + text_of(grid) + " blocks, none; leave the launch out where there is nothing to do";
  if (grid.x > kMostBlocks || grid.y > kMostRows || grid.z > kMostRows)
    return "a grid of " + text_of(grid) + " blocks; at most (2147483647, 65535, 65535) are allowed";
  if (config.shared > dynamic_limit(kernel.address))
    return std::to_string(config.shared) + " bytes of dynamic shared memory; more than " +
           std::to_string(dynamic_limit(kernel.address)) + " must be asked for with cudaFuncSetAttribute";
  if (config.shared > settings().shared_limit)
    return std::to_string(config.shared) + " bytes of dynamic shared memory; the device has " +
           std::to_string(settings().shared_limit) + " a block";
  return "";
}

std::string run_blocks(const Config& config, const void* frame, void (*body)(const void*)) {
  const dim3& grid = config.grid;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  const BlockOrder order = block_order(blocks);
  counts().blocks += blocks;
  counts().threads += blocks * config.block.x * config.block.y * config.block.z;
  std::string error;
  for (uint64_t b = 0; b < blocks && error.empty(); ++b) {
    const auto number = static_cast<uint64_t>((static_cast<unsigned __int128>(b) * order.step + order.offset) % blocks);
    indices.block = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                     static_cast<unsigned>(number / grid.x / grid.y)};
    watch::block_begins();
    forget_shared_values();
    error = run_block(config.block, body, frame);
  }
  return error;
}

}  // namespace

cudaStream_t current_stream() {
  static char stream;
  return reinterpret_cast<cudaStream_t>(&stream);
}

GuardedScope::GuardedScope() { ++guards; }
GuardedScope::~GuardedScope() { --guards; }

void run(const Kernel& kernel, const Config& config, const void* frame, size_t frame_size, void (*body)(const void*)) {
  const std::lock_guard lock(one_launch);
  const auto began = std::chrono::steady_clock::now();
  const std::string name = std::string(kernel.name) + " (" + name_of(kernel.site) + ")";
  if (settings().trace)
    std::fprintf(stderr, "cuda_emulator: %s, grid %s, block %s, %zu bytes of dynamic shared memory\n", name.c_str(),
                 text_of(config.grid).c_str(), text_of(config.block).c_str(), config.shared);
  std::string error = refusal(kernel, config);
  if (error.empty()) {
    indices.block_size = config.block;
    indices.grid_size = config.grid;
    watch::launch_begins(frame, frame_size);
    begin_shared(config.shared);
    error = run_blocks(config, frame, body);
    end_shared();
    watch::launch_ends();
  }
  ++counts().launches;
  counts().seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!error.empty()) throw std::runtime_error("cuda_emulator: " + name + ": " + error);
}

}  // namespace cuda_emulator
