// planted CASE: runs one case; prints what the emulator reports, and exits with 1 if it reports anything.
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <string>

#include "planted.h"

namespace {

std::map<std::string, void (*)()>& cases() {
  static std::map<std::string, void (*)()> all;
  return all;
}

}  // namespace

planted::Case::Case(const char* name, void (*run)()) { cases()[name] = run; }

void planted::copy_to_host(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void planted::set_to_zero(void* data, size_t bytes) {
  std::memset(data, 0, bytes);
  cuda_emulator::host_wrote(data, bytes);
}

int main(int count, char** arguments) {
  const auto found = cases().find(count > 1 ? arguments[1] : "");
  if (found == cases().end()) {
    for (const auto& [name, run] : cases()) std::printf("%s\n", name.c_str());
    return count > 1 ? 2 : 0;
  }
  try {
    found->second();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}
