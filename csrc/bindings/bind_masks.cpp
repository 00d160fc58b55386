#include "bindings.h"

namespace omni::bindings {

void register_masks(pybind11::module_&) {}

}  // namespace omni::bindings
