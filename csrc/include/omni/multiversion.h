// OMNI_MULTIVERSION compiles a function for the baseline and for x86-64-v3 (AVX2 and FMA); the
// loader picks. Elsewhere (aarch64, other compilers, sanitizers, which start too late for the
// loader's resolvers) it is nothing, and results are the same.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define OMNI_MULTIVERSION __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define OMNI_MULTIVERSION
#endif
