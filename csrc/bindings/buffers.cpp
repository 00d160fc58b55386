#include "buffers.h"

#include <stdexcept>

namespace omni::bindings {

Filter parse_filter(const std::string& name) {
  if (name == "bicubic") return Filter::bicubic;
  if (name == "bilinear") return Filter::bilinear;
  throw std::invalid_argument("filter must be 'bicubic' or 'bilinear', got '" + name + "'");
}

ImageSize size_of(std::pair<std::int64_t, std::int64_t> size) {
  const auto [height, width] = size;
  if (height < 1 || height > max_side || width < 1 || width > max_side) {
    throw std::invalid_argument("image side out of range");
  }
  return {height, width};
}

const std::uint8_t* plane_data(const pybind11::buffer& plane, std::int64_t stride, std::int64_t height,
                               std::int64_t width) {
  const pybind11::buffer_info memory = plane.request();
  if (stride < width || stride > max_side * 16 || !PyBuffer_IsContiguous(memory.view(), 'C') ||
      memory.size * memory.itemsize < (height - 1) * stride + width) {
    throw std::invalid_argument("a plane holds fewer bytes than its size says");
  }
  return static_cast<const std::uint8_t*>(memory.ptr);
}

}  // namespace omni::bindings
