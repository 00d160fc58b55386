// Checks of the pixel memory that Python hands over.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>

#include "omni/resize.h"

namespace omni::bindings {

// "bicubic" or "bilinear"; throws std::invalid_argument.
Filter parse_filter(const std::string& name);

// (height, width), checked against max_side.
ImageSize size_of(std::pair<std::int64_t, std::int64_t> size);

// The bytes of one plane of `height` rows of `width` bytes, `stride` apart, all of them there.
const std::uint8_t* plane_data(const pybind11::buffer& plane, std::int64_t stride, std::int64_t height,
                               std::int64_t width);

}  // namespace omni::bindings
