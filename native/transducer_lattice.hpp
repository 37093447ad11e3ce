// Forward-backward over the lattices of a transducer, and the row-wise softmax work around it.
#pragma once

#include <cstdint>

namespace wieldy {

// Lattices lie one after the other, T[n] x (U[n] + 1) nodes each, node (t, u) at t * (U[n] + 1) + u. `blank` and
// `label` are the arcs' log-probabilities. Out: the log-probability of all paths by either recursion, and how often a
// path takes each arc. With `modified` the label arc advances t as well. An utterance without a path has log_z = -inf
// and occupancies of 0.
void transducer_lattices(const double* blank, const double* label, const std::int64_t* frames,
                         const std::int64_t* symbols, std::int64_t count, bool modified, int threads,
                         double* log_z, double* log_z_backward, double* occupied_blank, double* occupied_label);

// Row rows[i] of `logits` (row-major, `width` columns) has its log-sum-exp in lse[i] and the log-probabilities of
// column `blank` and of column labels[i], -inf where that is negative, in the other two.
void transducer_emissions(const float* logits, std::int64_t width, const std::int64_t* rows,
                          const std::int64_t* labels, std::int64_t count, std::int64_t blank, int threads,
                          double* lse, double* blank_out, double* label_out);

// gradient[rows[i]] = (ob + ol) softmax(logits[rows[i]]), less ob in column `blank` and ol in column labels[i], with
// ob = occupied_blank[i] and ol = occupied_label[i]. `gradient` may be `logits`.
void transducer_gradient(const float* logits, std::int64_t width, const std::int64_t* rows,
                         const std::int64_t* labels, std::int64_t count, std::int64_t blank, int threads,
                         const double* lse, const double* occupied_blank, const double* occupied_label,
                         float* gradient);

}  // namespace wieldy
