#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native kernels of omni_sdk. Import omni_sdk.native, not this module.";
  omni::bindings::register_masks(m);
  omni::bindings::register_pixels(m);
  omni::bindings::register_propagation(m);
  omni::bindings::register_resize(m);
}
