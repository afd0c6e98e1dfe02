#include "shared_memory.h"

#include <cstring>
#include <vector>

#include "limits.h"
#include "report.h"
#include "settings.h"
#include "watch.h"

namespace cuda_emulator {
namespace {

std::vector<SharedVariable> variables;
size_t static_bytes = 0, dynamic_bytes = 0;

void forget_value(const SharedVariable& v) {
  std::memset(v.begin, kUnwritten, v.size);
  watch::unwritten(v.begin, v.size);
}

void check_room(const char* name, Site site) {
  const std::string where = std::string(name) + " of " + name_of(site) + ": ";
  if (static_bytes > kSharedWithoutAsking)
    fail("shared variable " + where + std::to_string(static_bytes) + " bytes of static shared memory, at most " +
         std::to_string(kSharedWithoutAsking) + " are allowed");
  if (static_bytes + dynamic_bytes > settings().shared_limit)
    fail("shared variable " + where + std::to_string(static_bytes) + " static and " + std::to_string(dynamic_bytes) +
         " dynamic bytes of shared memory, the device has " + std::to_string(settings().shared_limit) + " a block");
}

}  // namespace

void begin_shared(size_t bytes) {
  dynamic_bytes = bytes;
  if (bytes > 0) variables.push_back({nullptr, "of the launch", take_shared_room(bytes), bytes});
}

void forget_shared_values() {
  for (const SharedVariable& v : variables) forget_value(v);
}

void end_shared() {
  variables.clear();
  static_bytes = dynamic_bytes = 0;
  drop_shared_room();
}

const SharedVariable* shared_variable_at(const void* at, size_t size) {
  const auto* begin = static_cast<const char*>(at);
  for (const SharedVariable& v : variables)
    if (begin >= v.begin && begin + size <= v.begin + v.size) return &v;
  return nullptr;
}

void* shared_variable(const void* key, const char* name, size_t size, size_t align, Site site) {
  for (const SharedVariable& v : variables)
    if (v.key == key) return v.begin;
  static_bytes = (static_bytes + align - 1) / align * align + size;
  check_room(name, site);
  variables.push_back({key, name, take_shared_room(size), size});
  forget_value(variables.back());
  return variables.back().begin;
}

void* dynamic_shared(Site site) {
  if (dynamic_bytes == 0) fail("extern __shared__ memory at " + name_of(site) + ", but the launch gives none");
  return variables.front().begin;
}

}  // namespace cuda_emulator
