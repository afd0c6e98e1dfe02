#include "settings.h"

#include <cstdlib>
#include <iterator>
#include <stdexcept>

#include "schedule.h"

namespace cuda_emulator {
namespace {

constexpr const char* kNames[] = {"SEED", "PREEMPT", "SHARED", "PROCESSORS", "SKIP", "STATS", "TRACE"};
constexpr const char* kDefaults[] = {"0", "0", "101376", "108", "", "0", "0"};  // shared memory: of sm_86 and sm_89

// Whether there is a setting of this name, and the value is one of its values.
bool assign(Settings& to, const std::string& name, const char* value) {
  char* end = nullptr;
  const long number = std::strtol(value, &end, 10);
  if (name != "SKIP" && (end == value || *end != '\0')) return false;
  if (name == "SEED") {
    to.seed = number;
  } else if (name == "PREEMPT") {
    to.preempt = number;
  } else if (name == "SHARED") {
    to.shared_limit = static_cast<size_t>(number);
  } else if (name == "PROCESSORS") {
    to.processors = static_cast<int>(number);
  } else if (name == "SKIP") {
    to.skip = value;
  } else if (name == "STATS") {
    to.stats = number != 0;
  } else if (name == "TRACE") {
    to.trace = number != 0;
  } else {
    return false;
  }
  return true;
}

Settings& changeable() {
  static Settings* const one = [] {
    auto* made = new Settings;
    for (size_t i = 0; i < std::size(kNames); ++i) {
      const char* given = std::getenv(("CUDA_EMULATOR_" + std::string(kNames[i])).c_str());
      if (!assign(*made, kNames[i], given ? given : kDefaults[i]))
        throw std::runtime_error("cuda_emulator: CUDA_EMULATOR_" + std::string(kNames[i]) +
                                 " must be a whole number, got '" + given + "'");
    }
    return made;
  }();
  return *one;
}

}  // namespace

const Settings& settings() { return changeable(); }

}  // namespace cuda_emulator

int cuda_emulator_set(const char* name, const char* value) {
  const bool known = cuda_emulator::assign(cuda_emulator::changeable(), name, value);
  if (known) cuda_emulator::restart_schedule();
  return known ? 0 : 1;
}
