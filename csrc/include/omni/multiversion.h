// OMNI_MULTIVERSION compiles a function once for the baseline and once for AVX2 + FMA machines; the
// loader picks. Elsewhere (aarch64, other compilers, sanitizers, which start too late for the
// loader's resolvers) it is nothing, and results are the same.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define OMNI_MULTIVERSION __attribute__((target_clones("arch=haswell", "default")))
#else
#define OMNI_MULTIVERSION
#endif
