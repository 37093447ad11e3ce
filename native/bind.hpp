// One `bind_NAME.cpp` for each part of the extension; `module.cpp` calls them all.
#pragma once

#include <nanobind/nanobind.h>

namespace wieldy {

void bind_cpu(nanobind::module_& module);
void bind_transducer(nanobind::module_& module);

}  // namespace wieldy
