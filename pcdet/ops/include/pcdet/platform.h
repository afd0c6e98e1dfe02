// Which backend the compiler at work builds. Macros alone: plain maths that includes this and no more needs no PyTorch.
#pragma once

#if defined(__CUDACC__)
#define PCDET_BACKEND cuda
#define PCDET_DISPATCH_KEY CUDA
#define PCDET_HD __host__ __device__ __forceinline__
#else
#define PCDET_BACKEND cpu
#define PCDET_DISPATCH_KEY CPU
#define PCDET_HD inline
#endif
