#include <pybind11/numpy.h>

#include <stdexcept>
#include <string>

#include "bindings.h"
#include "omni/resize.h"

namespace py = pybind11;

namespace omni::bindings {
namespace {

using Images = py::array_t<std::uint8_t, py::array::c_style>;

Filter parse_filter(const std::string& name) {
  if (name == "bicubic") return Filter::bicubic;
  if (name == "bilinear") return Filter::bilinear;
  throw std::invalid_argument("filter must be 'bicubic' or 'bilinear', got '" + name + "'");
}

Images resize(const Images& images, std::int64_t height, std::int64_t width, const std::string& filter) {
  if (images.ndim() != 4 || images.shape(3) != 3) {
    throw std::invalid_argument("images must have shape (T, H, W, 3)");
  }
  const Filter kernel = parse_filter(filter);
  const ImageSize from{images.shape(1), images.shape(2)};
  const ImageSize to{height, width};
  for (const std::int64_t side : {from.height, from.width, to.height, to.width}) {
    if (side < 1 || side > max_side) throw std::invalid_argument("image side out of range");
  }
  Images result({images.shape(0), py::ssize_t{height}, py::ssize_t{width}, py::ssize_t{3}});
  const std::uint8_t* source = images.data();
  std::uint8_t* target = result.mutable_data();
  {
    py::gil_scoped_release release;
    resize_rgb(source, target, images.shape(0), from, to, kernel);
  }
  return result;
}

}  // namespace

void register_resize(py::module_& m) {
  m.def("resize", &resize, py::arg("images").noconvert(), py::arg("height"), py::arg("width"),
        py::arg("filter"), "Antialiased resize of (T, H, W, 3) uint8 images; see omni_sdk.media.resize.");
}

}  // namespace omni::bindings
