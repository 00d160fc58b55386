#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings.h"
#include "buffers.h"
#include "omni/resize.h"

namespace py = pybind11;

namespace omni::bindings {
namespace {

using Images = py::array_t<std::uint8_t, py::array::c_style>;

Images resize(const Images& images, std::int64_t height, std::int64_t width, const std::string& filter) {
  if (images.ndim() != 4 || images.shape(3) != 3) {
    throw std::invalid_argument("images must have shape (T, H, W, 3)");
  }
  const Filter kernel = parse_filter(filter);
  const ImageSize from = size_of({images.shape(1), images.shape(2)});
  const ImageSize to = size_of({height, width});
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
Images resize_plane(const py::buffer& plane, std::int64_t row_stride,
                    std::pair<std::int64_t, std::int64_t> size, std::pair<std::int64_t, std::int64_t> wanted,
                    const std::string& filter) {
  const ImageSize from = size_of(size);
  const ImageSize to = size_of(wanted);
  const Filter kernel = parse_filter(filter);
  const std::uint8_t* source = plane_data(plane, row_stride, from.height, from.width * 3);
  Images result({py::ssize_t{to.height}, py::ssize_t{to.width}, py::ssize_t{3}});
  std::uint8_t* target = result.mutable_data();
  {
    py::gil_scoped_release release;
    Resizer(from, to, kernel)(source, row_stride, target);
  }
  return result;
}

// 4:2:0 or 4:2:2 planes of a decoder (`chroma_rows`: 2 or 1 rows of luma per row of chroma) -> RGB of the
// size `wanted`.
Images yuv_to_rgb(const std::array<py::buffer, 3>& planes, const std::array<std::int64_t, 3>& strides,
                  std::pair<std::int64_t, std::int64_t> size, std::pair<std::int64_t, std::int64_t> wanted,
                  const std::string& filter, const std::array<std::int32_t, 4>& inverse, bool is_full_range,
                  std::int64_t chroma_rows) {
  const ImageSize from = size_of(size);
  const ImageSize to = size_of(wanted);
  const Filter kernel = parse_filter(filter);
  if (from.height % 2 || from.width % 2) throw std::invalid_argument("image side out of range: odd");
  if (chroma_rows != 1 && chroma_rows != 2) throw std::invalid_argument("chroma_rows must be 1 or 2");
  const std::int64_t chroma_height = from.height / chroma_rows;
  const YuvImage image{plane_data(planes[0], strides[0], from.height, from.width),
                       plane_data(planes[1], strides[1], chroma_height, from.width / 2),
                       plane_data(planes[2], strides[2], chroma_height, from.width / 2),
                       strides[0],
                       strides[1],
                       strides[2],
                       chroma_rows,
                       yuv_coefficients(inverse.data(), is_full_range)};
  Images result({py::ssize_t{to.height}, py::ssize_t{to.width}, py::ssize_t{3}});
  std::uint8_t* target = result.mutable_data();
  {
    py::gil_scoped_release release;
    if (from.height == to.height && from.width == to.width) {
      for (std::int64_t row = 0; row < from.height; ++row, target += from.width * 3) {
        image.row_to_rgb(row, from.width, target);
      }
    } else {
      Resizer(from, to, kernel)(image, target);
    }
  }
  return result;
}

}  // namespace

void register_resize(py::module_& m) {
  m.def("resize", &resize, py::arg("images").noconvert(), py::arg("height"), py::arg("width"),
        py::arg("filter"),
        "Antialiased resize of (T, H, W, 3) uint8 images; see omni_sdk.media.pixels.resize.");
  m.def("resize_plane", &resize_plane, py::arg("plane"), py::arg("row_stride"), py::arg("size"),
        py::arg("wanted"), py::arg("filter"),
        "As resize, from one frame whose (height, width) pixels lie row_stride bytes apart.");
  m.def(
      "yuv_to_rgb", &yuv_to_rgb, py::arg("planes"), py::arg("strides"), py::arg("size"), py::arg("wanted"),
      py::arg("filter"), py::arg("inverse"), py::arg("is_full_range"), py::arg("chroma_rows") = 2,
      "8-bit 4:2:0 or 4:2:2 planes -> RGB as libswscale on x86, resized; see omni_sdk.media.pixels.convert.");
}

}  // namespace omni::bindings
