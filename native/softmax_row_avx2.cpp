#include "softmax_row.hpp"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>

namespace wieldy {
namespace {

// exp(x) within 2 units in the last place for x in [-87.3, 88.3]; smaller x give 0. x = n ln 2 + r, |r| <= ln 2 / 2,
// and a minimax polynomial of degree 6 for exp(r) (coefficients as in the Cephes library).
inline __m256 exp_ps(__m256 x) {
    const __m256 too_small = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
    x = _mm256_min_ps(x, _mm256_set1_ps(88.3f));
    x = _mm256_max_ps(x, _mm256_set1_ps(-87.3f));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(too_small, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

}  // namespace

double log_sum_exp_avx2(const float* x, long width) {
    float largest = -INFINITY;
    __m256 most = _mm256_set1_ps(-INFINITY);
    __m256 unordered = _mm256_setzero_ps();
    long k = 0;
    for (; k + 8 <= width; k += 8) {
        const __m256 v = _mm256_loadu_ps(x + k);
        most = _mm256_max_ps(most, v);
        unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    }
    if (_mm256_movemask_ps(unordered)) return NAN;
    float lanes[8];
    _mm256_storeu_ps(lanes, most);
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    for (long rest = k; rest < width; ++rest) {
        if (x[rest] != x[rest]) return NAN;
        largest = x[rest] > largest ? x[rest] : largest;
    }
    if (largest == INFINITY || largest == -INFINITY) return largest;
    const __m256 shift = _mm256_set1_ps(largest);
    __m256 sums = _mm256_setzero_ps();
    for (k = 0; k + 8 <= width; k += 8) sums = _mm256_add_ps(sums, exp_ps(_mm256_sub_ps(_mm256_loadu_ps(x + k), shift)));
    _mm256_storeu_ps(lanes, sums);
    double sum = 0.0;
    for (float lane : lanes) sum += lane;
    for (; k < width; ++k) sum += expf(x[k] - largest);
    return largest + log(sum);
}

void scaled_exp_avx2(const float* x, long width, float shift, float scale, float* out) {
    const __m256 shifts = _mm256_set1_ps(shift);
    const __m256 scales = _mm256_set1_ps(scale);
    long k = 0;
    for (; k + 8 <= width; k += 8) {
        const __m256 value = exp_ps(_mm256_sub_ps(_mm256_loadu_ps(x + k), shifts));
        _mm256_storeu_ps(out + k, _mm256_mul_ps(scales, value));
    }
    for (; k < width; ++k) out[k] = scale * expf(x[k] - shift);
}

}  // namespace wieldy

#endif
