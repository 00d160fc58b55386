// Luma images and masks as the warping kernels read them: crops, padded, as pyramids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace omni {

// Longest side of a frame whose masks are warped: map coordinates stay within 32 bits.
constexpr int64_t kMaxFlowSide = 16384;
// Pixels around each level of a pyramid that may be read: a window and its gradient fit.
constexpr int64_t kFlowPad = 24;

// Grey values (or a byte mask, non-zero is foreground); rows may be strided, pixels are contiguous.
struct LumaView {
  const uint8_t* data;
  int64_t height;
  int64_t width;
  ptrdiff_t rowStride;

  const uint8_t* row(int64_t y) const { return data + y * rowStride; }
};

// Half-open pixel rectangle.
struct FlowBox {
  int64_t x0, y0, x1, y1;
};

// Throws std::invalid_argument unless 1 <= sides <= kMaxFlowSide.
void checkFlowSize(int64_t height, int64_t width);
// Throws std::invalid_argument unless the box is not empty and within the image.
void checkFlowBox(const FlowBox& box, int64_t height, int64_t width);

// The box around a mask's pixels; all 0 where there are none.
FlowBox maskBox(const LumaView& mask);

// One level: pixel (x, y) may be read for -kFlowPad <= x < width + kFlowPad, and so y.
struct PaddedImage {
  // Leaves the pixels unset.
  PaddedImage(int64_t height, int64_t width);

  uint8_t* row(int64_t y) { return pixels.get() + (y + kFlowPad) * stride + kFlowPad; }
  const uint8_t* row(int64_t y) const { return pixels.get() + (y + kFlowPad) * stride + kFlowPad; }

  int64_t height;
  int64_t width;
  int64_t stride;
  std::unique_ptr<uint8_t[]> pixels;
};

using FlowPyramid = std::vector<PaddedImage>;

// The box of an image and `levels` - 1 halvings of it. A level is the one below smoothed by
// (1 4 6 4 1) / 16 in each direction, edges repeated, at even pixels; rounded once. Edges are
// repeated into the padding.
FlowPyramid lumaPyramid(const LumaView& image, const FlowBox& box, int levels);

// The same of a mask (0/1): the lowest level is the mask grown by one pixel in each direction, a
// pixel of a higher level is set where any of the 3 x 3 around its even pixel is. Padding is 0.
FlowPyramid maskPyramid(const LumaView& mask, const FlowBox& box, int levels);

}  // namespace omni
