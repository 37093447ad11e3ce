#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <tuple>

#include "bind.hpp"
#include "cpu.hpp"

namespace nb = nanobind;

namespace wieldy {
namespace {

// By number, as in `Level`.
const char* const level_names[] = {"portable", "avx2", "avx512", "avx512_vnni"};

std::string name_of(Level level) { return level_names[static_cast<int>(level)]; }

std::vector<std::string> cpu_levels() {
    return {level_names, level_names + static_cast<int>(highest_cpu_level()) + 1};
}

void force_level_by_name(const std::string& name) {
    const std::vector<std::string> there = cpu_levels();
    const auto found = std::find(there.begin(), there.end(), name);
    if (found == there.end()) throw std::invalid_argument("this processor has no level '" + name + "'");
    force_cpu_level(static_cast<Level>(std::distance(there.begin(), found)));
}

std::vector<std::tuple<int, std::string, long>> caches_as_tuples() {
    std::vector<std::tuple<int, std::string, long>> found;
    for (const Cache& cache : cpu_caches()) found.emplace_back(cache.level, cache.kind, cache.bytes);
    return found;
}

}  // namespace

void bind_cpu(nb::module_& module) {
    using without_gil = nb::call_guard<nb::gil_scoped_release>;
    module.def("cpu_features", &cpu_features, without_gil());
    module.def("cpu_caches", &caches_as_tuples, without_gil());
    module.def("cpu_levels", &cpu_levels, without_gil());
    module.def("cpu_level", [] { return name_of(cpu_level()); }, without_gil());
    module.def("force_cpu_level", &force_level_by_name, nb::arg("level"), without_gil());
    module.def("unforce_cpu_level", &unforce_cpu_level, without_gil());
}

}  // namespace wieldy
