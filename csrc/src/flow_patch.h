// The point tracker's windows, Note [Tracking] in flow_track.h: samples and sums of whole windows, each in a
// portable and an AVX2 version that give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "omni/flow_track.h"

namespace omni::patches {

constexpr int kPixels = kWindow * kWindow;
constexpr int kUnit = 128;  // positions per pixel

// Where samples are taken: from the upper left pixel of a window on, each sample `a` / kUnit pixels right of
// its pixel and `b` / kUnit below. One pixel more than samples is read in each direction.
struct Corner {
  const uint8_t* pixel;
  ptrdiff_t stride;
  int32_t a, b;
};

// A template: its values, gradients (0 outside the object) and weights (0 or 1).
struct Patch {
  alignas(32) int16_t value[kPixels];
  alignas(32) int16_t gx[kPixels];
  alignas(32) int16_t gy[kPixels];
  alignas(32) int16_t weight[kPixels];
  int32_t xx, xy, yy, count;
};

// Gradient times difference.
struct Mismatch {
  int32_t x, y;
};

// Sums over the object's pixels.
struct Fit {
  int32_t difference;  // of the patch and another window, absolute
  int32_t deviation;   // of the patch from its mean, absolute
};

// `ring` is one pixel left of the window and one above; `inside` is the mask's pixel at the window's corner.
void makePatch(const Corner& ring, const uint8_t* inside, ptrdiff_t insideStride, Patch& patch);
Mismatch mismatch(const Patch& patch, const Corner& corner);
// The patch's count must not be 0.
Fit fit(const Patch& patch, const Corner& corner);

void makePatchAvx2(const Corner& ring, const uint8_t* inside, ptrdiff_t insideStride, Patch& patch);
Mismatch mismatchAvx2(const Patch& patch, const Corner& corner);
Fit fitAvx2(const Patch& patch, const Corner& corner);

}  // namespace omni::patches
