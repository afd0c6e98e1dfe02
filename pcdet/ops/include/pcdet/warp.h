// Threads that run in step on the GPU. For CUDA files.
#pragma once

#include "platform.h"

namespace pcdet::PCDET_BACKEND {

constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace pcdet::PCDET_BACKEND
