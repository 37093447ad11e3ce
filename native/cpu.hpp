// What this processor can do, and which instruction set the kernels may use.
#pragma once

#include <string>
#include <vector>

namespace wieldy {

// Ordered: a processor that has one level has every lower one.
enum class Level : int {
    portable = 0,     // plain C++
    avx2 = 1,         // AVX2, FMA, F16C
    avx512 = 2,       // AVX-512 F, BW, DQ, VL
    avx512_vnni = 3,  // the same with 8-bit dot products
};

struct Cache {
    int level;         // 1 is nearest to the core
    std::string kind;  // "data", "instruction" or "unified"
    long bytes;        // of one instance, shared or not
};

// Extensions that the processor and the operating system support, by the names the Linux kernel gives them.
// Empty where the architecture is not x86-64.
std::vector<std::string> cpu_features();

// The caches the first core sees, nearest first. Empty where the processor does not tell.
std::vector<Cache> cpu_caches();

// The level a kernel has to dispatch on: the highest this processor has, or the one that was forced.
Level cpu_level();

Level highest_cpu_level();

// Makes `cpu_level` answer `level` in every thread, which must not be above `highest_cpu_level`.
void force_cpu_level(Level level);

void unforce_cpu_level();

}  // namespace wieldy
