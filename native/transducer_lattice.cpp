#include "transducer_lattice.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "softmax_row.hpp"

namespace wieldy {
namespace {

constexpr double no_path = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
    const double high = std::max(a, b), low = std::min(a, b);
    return low == no_path ? high : high + std::log1p(std::exp(low - high));
}

// Calls work(begin, end) over [0, count) from several threads, `step` items at a time.
template <typename Work>
void in_parallel(std::int64_t count, std::int64_t step, int threads, const Work& work) {
    std::atomic<std::int64_t> next{0};
    const auto take = [&] {
        for (std::int64_t begin; (begin = next.fetch_add(step)) < count;) work(begin, std::min(begin + step, count));
    };
    std::vector<std::thread> others;
    const std::int64_t useful = std::min<std::int64_t>(threads, (count + step - 1) / step);
    for (std::int64_t i = 1; i < useful; ++i) others.emplace_back(take);
    take();
    for (std::thread& other : others) other.join();
}

void one_lattice(const double* blank, const double* label, std::int64_t T, std::int64_t U, bool modified,
                 double* log_z, double* log_z_backward, double* occupied_blank, double* occupied_label) {
    const std::int64_t width = U + 1;
    const auto at = [width](std::int64_t t, std::int64_t u) { return t * width + u; };
    // b(t, u) has a row t = T in which only b(T, U) = 0: every path ends with an arc that leaves the last frame there.
    std::vector<double> a(T * width, no_path), b((T + 1) * width, no_path);
    const std::int64_t ahead = modified ? 1 : 0;  // frames that a label advances
    a[0] = 0.0;
    for (std::int64_t t = 0; t < T; ++t) {
        for (std::int64_t u = 0; u <= U; ++u) {
            double sum = a[at(t, u)];
            if (t > 0) sum = log_add(sum, a[at(t - 1, u)] + blank[at(t - 1, u)]);
            if (u > 0 && t >= ahead) sum = log_add(sum, a[at(t - ahead, u - 1)] + label[at(t - ahead, u - 1)]);
            a[at(t, u)] = sum;
        }
    }
    b[at(T, U)] = 0.0;
    for (std::int64_t t = T - 1; t >= 0; --t) {
        for (std::int64_t u = U; u >= 0; --u) {
            double sum = b[at(t + 1, u)] + blank[at(t, u)];
            if (u < U) sum = log_add(sum, b[at(t + ahead, u + 1)] + label[at(t, u)]);
            b[at(t, u)] = sum;
        }
    }
    *log_z_backward = b[0];
    double total = a[at(T - 1, U)] + blank[at(T - 1, U)];
    if (modified && U > 0) total = log_add(total, a[at(T - 1, U - 1)] + label[at(T - 1, U - 1)]);
    *log_z = total;
    for (std::int64_t t = 0; t < T; ++t) {
        for (std::int64_t u = 0; u <= U; ++u) {
            const std::int64_t i = at(t, u);
            const double reached = a[i] - total;
            const bool possible = total != no_path;
            occupied_blank[i] = possible ? std::exp(reached + blank[i] + b[at(t + 1, u)]) : 0.0;
            occupied_label[i] = possible && u < U ? std::exp(reached + label[i] + b[at(t + ahead, u + 1)]) : 0.0;
        }
    }
}

}  // namespace

void transducer_lattices(const double* blank, const double* label, const std::int64_t* frames,
                         const std::int64_t* symbols, std::int64_t count, bool modified, int threads,
                         double* log_z, double* log_z_backward, double* occupied_blank, double* occupied_label) {
    std::vector<std::int64_t> first(count + 1, 0);
    for (std::int64_t n = 0; n < count; ++n) first[n + 1] = first[n] + frames[n] * (symbols[n] + 1);
    in_parallel(count, 1, threads, [&](std::int64_t n, std::int64_t) {
        const std::int64_t i = first[n];
        one_lattice(blank + i, label + i, frames[n], symbols[n], modified, log_z + n, log_z_backward + n,
                    occupied_blank + i, occupied_label + i);
    });
}

void transducer_emissions(const float* logits, std::int64_t width, const std::int64_t* rows,
                          const std::int64_t* labels, std::int64_t count, std::int64_t blank, int threads,
                          double* lse, double* blank_out, double* label_out) {
    const SoftmaxRow& row = softmax_row();
    in_parallel(count, 256, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const float* x = logits + rows[i] * width;
            lse[i] = row.log_sum_exp(x, width);
            blank_out[i] = x[blank] - lse[i];
            label_out[i] = labels[i] < 0 ? no_path : x[labels[i]] - lse[i];
        }
    });
}

void transducer_gradient(const float* logits, std::int64_t width, const std::int64_t* rows,
                         const std::int64_t* labels, std::int64_t count, std::int64_t blank, int threads,
                         const double* lse, const double* occupied_blank, const double* occupied_label,
                         float* gradient) {
    const SoftmaxRow& row = softmax_row();
    in_parallel(count, 256, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            float* out = gradient + rows[i] * width;
            const double passed = occupied_blank[i] + occupied_label[i];
            const float shift = static_cast<float>(lse[i]);  // what it loses to rounding goes into the scale
            const float scale = static_cast<float>(passed * std::exp(shift - lse[i]));
            row.scaled_exp(logits + rows[i] * width, width, shift, scale, out);
            out[blank] -= static_cast<float>(occupied_blank[i]);
            if (labels[i] >= 0) out[labels[i]] -= static_cast<float>(occupied_label[i]);
        }
    });
}

}  // namespace wieldy
