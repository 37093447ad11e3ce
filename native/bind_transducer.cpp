#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bind.hpp"
#include "transducer_lattice.hpp"

namespace nb = nanobind;

namespace wieldy {
namespace {

// The caller (`wieldy.kernels.transducer_lattice`) has checked sizes and indices.
template <typename Scalar>
using In = nb::ndarray<const Scalar, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename Scalar>
using Out = nb::ndarray<Scalar, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using TableOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void lattices(In<double> blank, In<double> label, In<std::int64_t> frames, In<std::int64_t> symbols, bool modified,
              int threads, Out<double> log_z, Out<double> log_z_backward, Out<double> occupied_blank,
              Out<double> occupied_label) {
    nb::gil_scoped_release released;
    transducer_lattices(blank.data(), label.data(), frames.data(), symbols.data(),
                        static_cast<std::int64_t>(frames.shape(0)), modified, threads, log_z.data(),
                        log_z_backward.data(), occupied_blank.data(), occupied_label.data());
}

void emissions(Table logits, In<std::int64_t> rows, In<std::int64_t> labels, std::int64_t blank, int threads,
               Out<double> lse, Out<double> blank_out, Out<double> label_out) {
    nb::gil_scoped_release released;
    transducer_emissions(logits.data(), static_cast<std::int64_t>(logits.shape(1)), rows.data(), labels.data(),
                         static_cast<std::int64_t>(rows.shape(0)), blank, threads, lse.data(), blank_out.data(),
                         label_out.data());
}

void gradient(Table logits, In<std::int64_t> rows, In<std::int64_t> labels, std::int64_t blank, int threads,
              In<double> lse, In<double> occupied_blank, In<double> occupied_label, TableOut out) {
    nb::gil_scoped_release released;
    transducer_gradient(logits.data(), static_cast<std::int64_t>(logits.shape(1)), rows.data(), labels.data(),
                        static_cast<std::int64_t>(rows.shape(0)), blank, threads, lse.data(), occupied_blank.data(),
                        occupied_label.data(), out.data());
}

}  // namespace

void bind_transducer(nb::module_& module) {
    module.def("transducer_lattices", &lattices);
    module.def("transducer_emissions", &emissions);
    module.def("transducer_gradient", &gradient);
}

}  // namespace wieldy
