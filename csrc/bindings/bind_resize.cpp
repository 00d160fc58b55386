#include <pybind11/numpy.h>
#include <pybind11/stl.h>

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

ImageSize size_of(std::int64_t height, std::int64_t width) {
  if (height < 1 || height > max_side || width < 1 || width > max_side) {
    throw std::invalid_argument("image side out of range");
  }
  return {height, width};
}

Images resize(const Images& images, std::int64_t height, std::int64_t width, const std::string& filter) {
  if (images.ndim() != 4 || images.shape(3) != 3) {
    throw std::invalid_argument("images must have shape (T, H, W, 3)");
  }
  const Filter kernel = parse_filter(filter);
  const ImageSize from = size_of(images.shape(1), images.shape(2));
  const ImageSize to = size_of(height, width);
  Images result({images.shape(0), py::ssize_t{height}, py::ssize_t{width}, py::ssize_t{3}});
  const std::uint8_t* source = images.data();
  std::uint8_t* target = result.mutable_data();
  {
    py::gil_scoped_release release;
    Resizer resizer(from, to, kernel);
    for (std::int64_t n = images.shape(0); n > 0; --n) {
      resizer(source, from.width * 3, target);
      source += from.height * from.width * 3;
      target += height * width * 3;
    }
  }
  return result;
}

// From a decoder's memory: `plane` holds rows of RGB pixels, `row_stride` bytes apart.
Images resize_plane(const py::buffer& plane, std::int64_t row_stride, std::pair<std::int64_t, std::int64_t> size,
                    std::pair<std::int64_t, std::int64_t> wanted, const std::string& filter) {
  const py::buffer_info memory = plane.request();
  const ImageSize from = size_of(size.first, size.second);
  const ImageSize to = size_of(wanted.first, wanted.second);
  const Filter kernel = parse_filter(filter);
  if (row_stride < from.width * 3 || row_stride > max_side * 16) {
    throw std::invalid_argument("row_stride out of range");
  }
  if (!PyBuffer_IsContiguous(memory.view(), 'C') ||
      memory.size * memory.itemsize < (from.height - 1) * row_stride + from.width * 3) {
    throw std::invalid_argument("the plane holds fewer bytes than its size says");
  }
  Images result({py::ssize_t{to.height}, py::ssize_t{to.width}, py::ssize_t{3}});
  std::uint8_t* target = result.mutable_data();
  {
    py::gil_scoped_release release;
    Resizer(from, to, kernel)(static_cast<const std::uint8_t*>(memory.ptr), row_stride, target);
  }
  return result;
}

}  // namespace

void register_resize(py::module_& m) {
  m.def("resize", &resize, py::arg("images").noconvert(), py::arg("height"), py::arg("width"),
        py::arg("filter"), "Antialiased resize of (T, H, W, 3) uint8 images; see omni_sdk.media.resize.");
  m.def("resize_plane", &resize_plane, py::arg("plane"), py::arg("row_stride"), py::arg("size"),
        py::arg("wanted"), py::arg("filter"),
        "As resize, from one frame whose (height, width) pixels lie row_stride bytes apart.");
}

}  // namespace omni::bindings
