#include "skip.h"

#include "counts.h"
#include "report.h"
#include "settings.h"

namespace cuda_emulator {

bool is_left_out(const Site& site) {
  const std::string& skip = settings().skip;
  if (skip.empty() || name_of(site) != skip) return false;
  ++counts().left_out;
  return true;
}

}  // namespace cuda_emulator
