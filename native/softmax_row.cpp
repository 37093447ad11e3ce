#include "softmax_row.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu.hpp"

namespace wieldy {
namespace {

double log_sum_exp_portable(const float* x, long width) {
    float largest = -std::numeric_limits<float>::infinity();
    for (long k = 0; k < width; ++k) {
        if (std::isnan(x[k])) return x[k];
        largest = std::max(largest, x[k]);
    }
    if (std::isinf(largest)) return largest;
    double sum = 0.0;
    for (long k = 0; k < width; ++k) sum += std::exp(x[k] - largest);
    return largest + std::log(sum);
}

void scaled_exp_portable(const float* x, long width, float shift, float scale, float* out) {
    for (long k = 0; k < width; ++k) out[k] = scale * std::exp(x[k] - shift);
}

const SoftmaxRow portable{log_sum_exp_portable, scaled_exp_portable};
#if defined(__x86_64__)
const SoftmaxRow avx2{log_sum_exp_avx2, scaled_exp_avx2};
#endif

}  // namespace

const SoftmaxRow& softmax_row() {
#if defined(__x86_64__)
    if (cpu_level() >= Level::avx2) return avx2;
#endif
    return portable;
}

}  // namespace wieldy
