// One row of a softmax, for each instruction set. Callers go through `softmax_row`.
#pragma once

namespace wieldy {

struct SoftmaxRow {
    // log sum_k exp(x[k]); -inf where all are. NaN where one is.
    double (*log_sum_exp)(const float* x, long width);
    // out[k] = scale * exp(x[k] - shift); `out` may be `x`.
    void (*scaled_exp)(const float* x, long width, float shift, float scale, float* out);
};

const SoftmaxRow& softmax_row();

double log_sum_exp_avx2(const float* x, long width);
void scaled_exp_avx2(const float* x, long width, float shift, float scale, float* out);

}  // namespace wieldy
