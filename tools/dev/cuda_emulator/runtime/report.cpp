#include "report.h"

#include <cstring>
#include <map>
#include <sstream>
#include <stdexcept>

#include "schedule.h"

namespace cuda_emulator {

std::string name_of(const Site& site) {
  const char* slash = std::strrchr(site.file, '/');
  return std::string(slash ? slash + 1 : site.file) + ":" + std::to_string(site.line);
}

const char* name_of(WarpOp op) {
  static const char* const kNames[] = {"__syncwarp",       "__ballot_sync",   "__shfl_sync",
                                       "__shfl_down_sync", "__shfl_xor_sync", "__match_any_sync"};
  return kNames[static_cast<int>(op)];
}

bool same_site(const Site& a, const Site& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

std::string name_of_thread(const uint3& thread, const uint3& block) {
  std::ostringstream out;
  out << "thread (" << thread.x << ", " << thread.y << ", " << thread.z << ") of block (" << block.x << ", " << block.y
      << ", " << block.z << ")";
  return out.str();
}

void fail(const std::string& message) {
  Schedule& s = schedule();
  if (!s.current) throw std::runtime_error("cuda_emulator: " + message);
  s.error = message + " [" + name_of_thread(indices.thread, indices.block) + "]";
  leave_for_good();
}

std::string positions() {
  std::map<std::string, int> counts;
  for (const Thread& t : schedule().threads) {
    std::string what = "running";
    if (t.state == State::kReturned) what = "returned";
    if (t.state == State::kAtBarrier) what = "at __syncthreads " + name_of(t.site);
    if (t.state == State::kAtWarpOp) what = std::string("at ") + name_of(t.op) + " " + name_of(t.site);
    ++counts[what];
  }
  std::ostringstream out;
  for (const auto& [what, count] : counts) out << (out.tellp() > 0 ? ", " : "") << count << " " << what;
  return out.str();
}

}  // namespace cuda_emulator
