// One register function per bound family; each lives in its own bind_*.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace omni::bindings {

void register_masks(pybind11::module_& m);
void register_pixels(pybind11::module_& m);
void register_propagation(pybind11::module_& m);
void register_resize(pybind11::module_& m);

}  // namespace omni::bindings
