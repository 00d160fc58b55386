#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings.h"
#include "buffers.h"
#include "omni/pixel_target.h"
#include "omni/plane_pixels.h"

namespace py = pybind11;

namespace omni::bindings {
namespace {

using Pair = std::pair<std::int64_t, std::int64_t>;
using Planes = std::vector<py::buffer>;
using Strides = std::vector<std::int64_t>;
using Flags = std::tuple<bool, bool, bool>;  // transpose, flip_x, flip_y
using Triple = std::array<std::int64_t, 3>;  // patch, merge, temporal

PlanePixels make_pixels(Pair subsampling, int bits, int padding_bits, bool chroma_interleaved,
                        std::pair<double, double> siting, Pair size, Pair wanted, const std::string& filter) {
  if (subsampling.first < 0 || subsampling.first > 2 || subsampling.second < 0 || subsampling.second > 2) {
    throw std::invalid_argument("no such plane format");
  }
  const PlaneFormat format{static_cast<int>(subsampling.second),
                           static_cast<int>(subsampling.first),
                           bits,
                           padding_bits,
                           chroma_interleaved,
                           siting.second,
                           siting.first};
  return PlanePixels(format, size_of(size), size_of(wanted), parse_filter(filter));
}

PlaneImage check_planes(const PlanePixels& pixels, const Planes& planes, const Strides& strides) {
  PlaneImage image{{nullptr, nullptr, nullptr}, {0, 0, 0}};
  const auto bytes = pixels.plane_bytes();
  for (std::size_t i = 0; i < 3; ++i) {
    if (bytes[i].height == 0) continue;
    if (i >= planes.size() || i >= strides.size()) throw std::invalid_argument("a plane is missing");
    image.planes[i] = plane_data(planes[i], strides[i], bytes[i].height, bytes[i].width);
    image.strides[i] = strides[i];
  }
  return image;
}

ColourMatrix matrix_of(const std::array<float, 8>& m) {
  return {m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]};
}

Turn turn_of(const Flags& flags) { return {std::get<0>(flags), std::get<1>(flags), std::get<2>(flags)}; }

// The memory of a writable contiguous array of exactly this many values of this type.
void* output_data(py::array& out, const py::dtype& type, std::int64_t values) {
  if (!out.dtype().is(type) || !(out.flags() & py::array::c_style) || !out.writeable() ||
      out.size() != values) {
    throw std::invalid_argument("expected a contiguous output of " + std::to_string(values) + " values");
  }
  return out.mutable_data();
}

void rgb(const PlanePixels& pixels, const Planes& planes, const Strides& strides,
         const std::array<float, 8>& matrix, const Flags& flags, py::array out) {
  const PlaneImage image = check_planes(pixels, planes, strides);
  const ImageSize size = pixels.size();
  void* data = output_data(out, py::dtype::of<std::uint8_t>(), size.height * size.width * 3);
  py::gil_scoped_release release;
  RgbTarget target(static_cast<std::uint8_t*>(data), size, turn_of(flags));
  pixels(image, matrix_of(matrix), target);
}

PatchLayout layout_of(const Triple& sides, ImageSize size) {
  const PatchLayout layout{sides[0], sides[1], sides[2]};
  layout.check(size);
  return layout;
}

py::dtype half() { return py::dtype("float16"); }

// Patches in memory: whole temporal rows of float or, as bits, half precision.
struct PatchMemory {
  void* data;
  bool is_half;
};

// Checks that places [first, first + count) exist in `out`.
PatchMemory check_patches(py::array& out, const PatchLayout& layout, ImageSize size, std::int64_t first,
                          std::int64_t count) {
  const std::int64_t rows = out.size() / layout.frame_values(size);
  if (first < 0 || count < 0 || first > rows * layout.temporal - count) {
    throw std::invalid_argument("no such frame in the output");
  }
  const bool is_half = out.dtype().is(half());
  return {output_data(out, is_half ? half() : py::dtype::of<float>(), rows * layout.frame_values(size)),
          is_half};
}

void patches(const PlanePixels& pixels, const Planes& planes, const Strides& strides,
             const std::array<float, 8>& matrix, const Flags& flags, const Triple& sides,
             const std::array<float, 3>& scale, const std::array<float, 3>& offset, py::array out,
             std::int64_t frame) {
  const PlaneImage image = check_planes(pixels, planes, strides);
  const Turn turn = turn_of(flags);
  const ImageSize stored = pixels.size(), size = upright(stored, turn);
  const PatchLayout layout = layout_of(sides, size);
  const PatchMemory memory = check_patches(out, layout, size, frame, 1);
  py::gil_scoped_release release;
  const auto write = [&](auto* data) {
    PatchTarget target(data, layout, frame, stored, turn, scale, offset);
    pixels(image, matrix_of(matrix), target);
  };
  memory.is_half ? write(static_cast<std::uint16_t*>(memory.data)) : write(static_cast<float*>(memory.data));
}

void patchify_images(const py::array_t<std::uint8_t, py::array::c_style>& images, const Triple& sides,
                     const py::array& tables, py::array out, std::int64_t first) {
  if (images.ndim() != 4 || images.shape(3) != 3) {
    throw std::invalid_argument("images must have shape (T, H, W, 3)");
  }
  const ImageSize size = size_of({images.shape(1), images.shape(2)});
  const PatchLayout layout = layout_of(sides, size);
  const std::int64_t count = images.shape(0);
  const PatchMemory memory = check_patches(out, layout, size, first, count);
  if (!tables.dtype().is(out.dtype()) || tables.size() != 3 * 256 || !(tables.flags() & py::array::c_style)) {
    throw std::invalid_argument("tables must be (3, 256), of the output's type");
  }
  const std::uint8_t* source = images.data();
  const void* table = tables.data();
  py::gil_scoped_release release;
  const auto write = [&](auto* data) {
    for (std::int64_t n = 0; n < count; ++n) {
      patchify(source + n * size.height * size.width * 3, size, layout,
               static_cast<const std::remove_pointer_t<decltype(data)>*>(table), data, first + n);
    }
  };
  memory.is_half ? write(static_cast<std::uint16_t*>(memory.data)) : write(static_cast<float*>(memory.data));
}

}  // namespace

void register_pixels(py::module_& m) {
  py::class_<PlanePixels>(m, "PlanePixels", "Planes -> RGB or patches; see omni_sdk.media.pixels.fast.")
      .def(py::init(&make_pixels), py::arg("subsampling"), py::arg("bits"), py::arg("padding_bits"),
           py::arg("chroma_interleaved"), py::arg("siting"), py::arg("size"), py::arg("wanted"),
           py::arg("filter"))
      .def("rgb", &rgb, py::arg("planes"), py::arg("strides"), py::arg("matrix"), py::arg("turn"),
           py::arg("out").noconvert())
      .def("patches", &patches, py::arg("planes"), py::arg("strides"), py::arg("matrix"), py::arg("turn"),
           py::arg("sides"), py::arg("scale"), py::arg("offset"), py::arg("out").noconvert(),
           py::arg("frame"));
  m.def("patchify", &patchify_images, py::arg("images").noconvert(), py::arg("sides"), py::arg("tables"),
        py::arg("out").noconvert(), py::arg("first"),
        "(T, H, W, 3) uint8 -> patches by look-up; see omni_sdk.media.pixels.patch_layout.");
}

}  // namespace omni::bindings
