#include "shadow.h"

#include <algorithm>

#include "arena.h"
#include "map_memory.h"

namespace cuda_emulator::shadow {
namespace {

constexpr size_t kGranule = 4;

struct Place {
  Access write;
  AccessSet reads, atomics;
};

struct Cell {
  uint32_t stamp;  // of the launch, or of the block in shared memory; what is older counts as empty
  uint32_t parts;  // 1 + the number of its four bytes' places once one of them was accessed alone, else 0
  Place whole;
};

struct Parts {
  Place bytes[kGranule];
};

// Cells and pools of shared memory live as long as a block, those of device memory as long as a launch.
struct Lifetime {
  uint32_t stamp = 0;
  AccessPool accesses;
  Pool<Parts> parts;
  void begin(uint32_t new_stamp) {
    stamp = new_stamp;
    accesses.clear();
    parts.clear();
  }
};

Cell* cells() {
  static Cell* const all = map_memory<Cell>(arena::kBytes / kGranule);
  return all;
}

uint32_t last_stamp = 0;
Lifetime of_launch, of_block;

Race note_place(Place& place, Kind kind, const Access& access, AccessPool& pool) {
  if (place.write.there && !order::is_before(place.write)) return {place.write, Kind::kWrite};
  if (kind != Kind::kAtomic)
    if (const Access* earlier = place.atomics.unordered(pool)) return {*earlier, Kind::kAtomic};
  if (kind != Kind::kRead)
    if (const Access* earlier = place.reads.unordered(pool)) return {*earlier, Kind::kRead};
  if (kind == Kind::kRead) place.reads.add(access, pool);
  if (kind == Kind::kAtomic) place.atomics.add(access, pool);
  if (kind == Kind::kWrite) place.write = access;
  return {};
}

// The places of a cell's bytes, which begin with what the whole had seen.
Parts& split(Cell& cell, Lifetime& life) {
  if (cell.parts == 0) {
    cell.parts = 1 + life.parts.take();
    Parts& parts = life.parts[cell.parts - 1];
    for (Place& byte : parts.bytes) {
      byte.write = cell.whole.write;
      byte.reads = cell.whole.reads.copy(life.accesses);
      byte.atomics = cell.whole.atomics.copy(life.accesses);
    }
  }
  return life.parts[cell.parts - 1];
}

Race note_granule(size_t granule, size_t first, size_t count, Kind kind, const Access& access, Lifetime& life) {
  Cell& cell = cells()[granule];
  if (cell.stamp != life.stamp) cell = Cell{}, cell.stamp = life.stamp;
  if (cell.parts == 0 && count == kGranule) return note_place(cell.whole, kind, access, life.accesses);
  Parts& parts = split(cell, life);
  for (size_t i = first; i < first + count; ++i) {
    const Race race = note_place(parts.bytes[i], kind, access, life.accesses);
    if (race.earlier.there) return race;
  }
  return {};
}

}  // namespace

const char* name_of(Kind kind) {
  static const char* const kNames[] = {"read", "write", "atomic"};
  return kNames[static_cast<int>(kind)];
}

void begin_launch() { of_launch.begin(++last_stamp); }

void begin_block() { of_block.begin(++last_stamp); }

Race note(const void* at, size_t size, Kind kind, const Access& access) {
  Lifetime& life = arena::is_shared(at) ? of_block : of_launch;
  const size_t begin = arena::offset_of(at), end = begin + size;
  for (size_t from = begin; from < end;) {
    const size_t granule = from / kGranule, to = std::min(end, (granule + 1) * kGranule);
    const Race race = note_granule(granule, from % kGranule, to - from, kind, access, life);
    if (race.earlier.there) return race;
    from = to;
  }
  return {};
}

}  // namespace cuda_emulator::shadow
