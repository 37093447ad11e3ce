#include "cpu.hpp"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace wieldy {
namespace {

constexpr int not_forced = -1;
std::atomic<int> forced{not_forced};

#if defined(__x86_64__)

// CPUID leaves with one cache per subleaf: Intel's, and AMD's copy of it with the same fields.
constexpr unsigned intel_caches = 0x4;
constexpr unsigned amd_caches = 0x8000001D;

std::vector<Cache> caches_of_leaf(unsigned leaf) {
    std::vector<Cache> found;
    unsigned eax, ebx, ecx, edx;
    for (unsigned subleaf = 0; __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); ++subleaf) {
        const unsigned type = eax & 0x1F;
        if (type == 0 || type > 3) break;
        const char* const kinds[] = {"data", "instruction", "unified"};
        const long line = (ebx & 0xFFF) + 1;
        const long partitions = ((ebx >> 12) & 0x3FF) + 1;
        const long ways = ((ebx >> 22) & 0x3FF) + 1;
        const long sets = static_cast<long>(ecx) + 1;
        found.push_back({static_cast<int>((eax >> 5) & 0x7), kinds[type - 1], line * partitions * ways * sets});
    }
    return found;
}

#endif

}  // namespace

std::vector<std::string> cpu_features() {
    std::vector<std::string> found;
#if defined(__x86_64__)
    // The compiler's built-in asks the operating system too: a register file it does not save counts as absent.
#define WIELDY_ADD(compiler_name, kernel_name) \
    if (__builtin_cpu_supports(compiler_name)) found.push_back(kernel_name)
    WIELDY_ADD("sse4.2", "sse4_2");
    WIELDY_ADD("avx", "avx");
    WIELDY_ADD("avx2", "avx2");
    WIELDY_ADD("fma", "fma");
    WIELDY_ADD("f16c", "f16c");
    WIELDY_ADD("avxvnni", "avx_vnni");
    WIELDY_ADD("avx512f", "avx512f");
    WIELDY_ADD("avx512bw", "avx512bw");
    WIELDY_ADD("avx512dq", "avx512dq");
    WIELDY_ADD("avx512vl", "avx512vl");
    WIELDY_ADD("avx512vnni", "avx512_vnni");
    WIELDY_ADD("avx512bf16", "avx512_bf16");
    WIELDY_ADD("avx512fp16", "avx512_fp16");
    WIELDY_ADD("amx-tile", "amx_tile");
    WIELDY_ADD("amx-int8", "amx_int8");
    WIELDY_ADD("amx-bf16", "amx_bf16");
#undef WIELDY_ADD
#endif
    return found;
}

std::vector<Cache> cpu_caches() {
#if defined(__x86_64__)
    const std::vector<Cache> intel = caches_of_leaf(intel_caches);
    return intel.empty() ? caches_of_leaf(amd_caches) : intel;
#else
    return {};
#endif
}

Level highest_cpu_level() {
#if defined(__x86_64__)
    const bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (!avx2) return Level::portable;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!avx512) return Level::avx2;
    return __builtin_cpu_supports("avx512vnni") ? Level::avx512_vnni : Level::avx512;
#else
    return Level::portable;
#endif
}

Level cpu_level() {
    const int level = forced.load(std::memory_order_relaxed);
    return level == not_forced ? highest_cpu_level() : static_cast<Level>(level);
}

void force_cpu_level(Level level) { forced.store(static_cast<int>(level), std::memory_order_relaxed); }

void unforce_cpu_level() { forced.store(not_forced, std::memory_order_relaxed); }

}  // namespace wieldy
