#include "bindings.h"

namespace omni::bindings {

void register_resize(pybind11::module_&) {}

}  // namespace omni::bindings
