// Antialiased resize of 8-bit images, bit-identical to
// torch.nn.functional.interpolate(uint8, mode, antialias=True) (and so to torchvision.transforms.v2).
//
// torch (aten/src/ATen/native/cpu/UpSampleKernel.cpp) computes the filter's weights in double, scales them to
// int16 with as many fractional bits as the largest one allows, and does two separable passes, horizontal
// first, each with an int32 sum, a rounding shift and a clamp to uint8 in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace omni {

enum class Filter { bilinear, bicubic };

// Weights of one axis: output i = sum_j values[i * taps + j] * input[starts[i] + j], j < counts[i].
struct AxisWeights {
  std::vector<std::int32_t> starts;
  std::vector<std::int32_t> counts;
  std::vector<std::int16_t> values;  // rows of `taps`, zero beyond the count
  std::int32_t taps = 0;
  unsigned precision = 0;  // fractional bits
};

// Sizes are in [1, max_side]; throws std::invalid_argument otherwise.
constexpr std::int64_t max_side = 1 << 20;
AxisWeights axis_weights(std::int64_t input_size, std::int64_t output_size, Filter filter);

struct ImageSize {
  std::int64_t height;
  std::int64_t width;
};

// `source` holds `count` images of size `from` with 3 interleaved channels, `target` room for as many of
// size `to`. All rows are contiguous.
void resize_rgb(const std::uint8_t* source, std::uint8_t* target, std::int64_t count, ImageSize from,
                ImageSize to, Filter filter);

}  // namespace omni
