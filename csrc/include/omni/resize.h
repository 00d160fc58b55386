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

#include "omni/taps.h"
#include "omni/yuv_rgb.h"

namespace omni {

// Weights of one axis: output i = sum_j values[i * stride + j] * input[starts[i] + j], j < counts[i].
struct AxisWeights {
  std::vector<std::int32_t> starts;
  std::vector<std::int32_t> counts;
  std::vector<std::int16_t> values;  // rows of `stride`, zero beyond the count
  std::int32_t stride = 0;           // a multiple of 4
  unsigned precision = 0;            // fractional bits
};

// Throws std::invalid_argument for a size outside [1, max_side].
AxisWeights axis_weights(std::int64_t input_size, std::int64_t output_size, Filter filter);

struct ImageSize {
  std::int64_t height;
  std::int64_t width;
};

// Resizes images of one size to another. Not for two threads at a time: it keeps its scratch rows.
class Resizer {
 public:
  // Throws std::invalid_argument for a side outside [1, max_side].
  Resizer(ImageSize from, ImageSize to, Filter filter);

  // `source`: rows of 3 interleaved channels, `row_stride` >= 3 * width bytes apart; `target`: room for
  // the result, its rows contiguous. Reads nothing beyond the last row's last pixel.
  void operator()(const std::uint8_t* source, std::int64_t row_stride, std::uint8_t* target);

  // The same from a decoder's planes, a few RGB rows at a time, which stay in the cache.
  void operator()(const YuvImage& source, std::uint8_t* target);

 private:
  template <class Rows>
  void resize(const Rows& source, std::uint8_t* target);
  template <class Rows>
  void narrow_rows(const Rows& source, std::int64_t first);
  std::uint8_t* ring_row(std::int64_t row);

  ImageSize from_, to_;
  AxisWeights across_, down_;
  std::int64_t ring_rows_, ring_stride_;
  std::vector<std::uint8_t> ring_;     // horizontally resized rows, as many as one output row needs
  std::vector<std::uint8_t> padded_;   // copies of the rows next to the end of the source
  std::vector<std::int16_t> columns_;  // for the portable horizontal pass
};

}  // namespace omni
