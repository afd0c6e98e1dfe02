#include "source_line.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdio>
#include <cstring>
#include <vector>

namespace cuda_emulator {
namespace {

struct Range {
  const char *begin, *end;
};

// The library (or program) that holds this code.
struct Module {
  const char* base;
  std::string path;
  std::vector<Range> constants;  // what is never written, or not after relocation
};

int find_constants(dl_phdr_info* info, size_t, void* data) {
  auto& module = *static_cast<Module*>(data);
  const auto* base = reinterpret_cast<const char*>(info->dlpi_addr);
  if (base != module.base) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & part = info->dlpi_phdr[i];
    const bool constant = part.p_type == PT_GNU_RELRO || (part.p_type == PT_LOAD && !(part.p_flags & PF_W));
    if (constant) module.constants.push_back({base + part.p_vaddr, base + part.p_vaddr + part.p_memsz});
  }
  return 1;
}

const Module& module() {
  static const Module* const one = [] {
    auto* made = new Module{};
    Dl_info info{};
    dladdr(reinterpret_cast<const void*>(&pc_of), &info);
    made->base = static_cast<const char*>(info.dli_fbase);
    made->path = info.dli_fname;
    dl_iterate_phdr(&find_constants, made);
    return made;
  }();
  return *one;
}

// "/a/b/file.cu:12 (discriminator 3)" -> "file.cu:12"
std::string short_form(const char* line) {
  std::string text = line;
  text.erase(text.find_first_of(" \n"));
  const auto slash = text.rfind('/');
  return slash == std::string::npos ? text : text.substr(slash + 1);
}

}  // namespace

uint32_t pc_of(const void* return_address) {
  return static_cast<uint32_t>(static_cast<const char*>(return_address) - module().base);
}

std::string source_line(uint32_t pc) {
  char address[32];
  std::snprintf(address, sizeof address, "0x%x", pc - 1);  // within the call
  const std::string command = "addr2line -ie '" + module().path + "' " + address + " 2>/dev/null";
  std::string out;
  if (FILE* pipe = popen(command.c_str(), "r")) {
    char line[4096];
    while (std::fgets(line, sizeof line, pipe)) out += (out.empty() ? "" : " < ") + short_form(line);
    pclose(pipe);
  }
  if (out.empty() || out[0] == '?') return std::string(address) + " of " + module().path + " (addr2line knows no line)";
  return out;
}

bool is_constant(const void* address, size_t size) {
  const auto* at = static_cast<const char*>(address);
  for (const Range& range : module().constants)
    if (at >= range.begin && at + size <= range.end) return true;
  return false;
}

}  // namespace cuda_emulator
