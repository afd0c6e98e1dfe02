// Wide vectors without asking for a newer machine: a function marked PCDET_WIDE is compiled once for the platform's
// baseline and again for AVX2 and AVX-512, and the loader picks the best one this processor has. For plain functions
// (no templates, no lambdas inside) whose loops the compiler can vectorise. CPU files only.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(PCDET_NO_WIDE)
#define PCDET_WIDE __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define PCDET_WIDE
#endif

// What becomes part of the PCDET_WIDE function that calls it, and is compiled for the same vectors.
#if defined(__GNUC__)
#define PCDET_INLINE __attribute__((always_inline)) inline
#else
#define PCDET_INLINE inline
#endif
