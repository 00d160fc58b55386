#include "flow_patch.h"

#include <algorithm>
#include <cstdlib>

#include "resize_rows.h"

namespace omni::patches {
namespace {

constexpr int kRing = kWindow + 2;  // the window with the ring that its gradient needs

// `rows` rows of kWindow bilinear samples, in 1/16 grey value.
template <int rows>
inline void sample(const Corner& corner, int16_t* out, int stride) {
  const int16_t a1 = static_cast<int16_t>(corner.a), a0 = static_cast<int16_t>(kUnit - corner.a);
  const int16_t b1 = static_cast<int16_t>(corner.b), b0 = static_cast<int16_t>(kUnit - corner.b);
  int16_t lines[rows + 1][kWindow];
  const uint8_t* p = corner.pixel;
  for (int y = 0; y <= rows; ++y, p += corner.stride)
    for (int x = 0; x < kWindow; ++x) lines[y][x] = static_cast<int16_t>(p[x] * a0 + p[x + 1] * a1);
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < kWindow; ++x)
      out[y * stride + x] = static_cast<int16_t>((lines[y][x] * b0 + lines[y + 1][x] * b1 + 512) >> 10);
}

int32_t dot(const int16_t* a, const int16_t* b) {
  int32_t sum = 0;  // |a b| <= 2040 * 4080: 256 of them fit
  for (int i = 0; i < kPixels; ++i) sum += static_cast<int32_t>(a[i]) * b[i];
  return sum;
}

}  // namespace

void makePatch(const Corner& ring, const uint8_t* inside, ptrdiff_t insideStride, Patch& patch) {
  if (rows::has_avx2()) return makePatchAvx2(ring, inside, insideStride, patch);
  int16_t samples[kRing * kRing];
  sample<kRing>(ring, samples, kRing);
  constexpr int kLast = kRing - kWindow;  // the ring's last columns
  sample<kRing>({ring.pixel + kLast, ring.stride, ring.a, ring.b}, samples + kLast, kRing);
  for (int j = 0; j < kWindow; ++j, inside += insideStride) {
    const int16_t* above = samples + j * kRing + 1;
    const int16_t* here = above + kRing;
    const int16_t* below = here + kRing;
    // Local rows: bytes may alias anything, and compilers vectorise only what cannot.
    int16_t weight[kWindow], gx[kWindow], gy[kWindow];
    for (int i = 0; i < kWindow; ++i) weight[i] = inside[i];
    for (int i = 0; i < kWindow; ++i) {
      gx[i] = static_cast<int16_t>(((here[i + 1] - here[i - 1]) >> 1) * weight[i]);
      gy[i] = static_cast<int16_t>(((below[i] - above[i]) >> 1) * weight[i]);
    }
    std::copy_n(here, kWindow, patch.value + j * kWindow);
    std::copy_n(weight, kWindow, patch.weight + j * kWindow);
    std::copy_n(gx, kWindow, patch.gx + j * kWindow);
    std::copy_n(gy, kWindow, patch.gy + j * kWindow);
  }
  patch.count = dot(patch.weight, patch.weight);
  patch.xx = dot(patch.gx, patch.gx);
  patch.xy = dot(patch.gx, patch.gy);
  patch.yy = dot(patch.gy, patch.gy);
}

Mismatch mismatch(const Patch& patch, const Corner& corner) {
  if (rows::has_avx2()) return mismatchAvx2(patch, corner);
  int16_t now[kPixels];
  sample<kWindow>(corner, now, kWindow);
  for (int i = 0; i < kPixels; ++i) now[i] = static_cast<int16_t>(patch.value[i] - now[i]);
  return {dot(patch.gx, now), dot(patch.gy, now)};
}

Fit fit(const Patch& patch, const Corner& corner) {
  if (rows::has_avx2()) return fitAvx2(patch, corner);
  int16_t now[kPixels];
  sample<kWindow>(corner, now, kWindow);
  const int32_t mean = dot(patch.value, patch.weight) / patch.count;
  Fit sums{0, 0};
  for (int i = 0; i < kPixels; ++i) {
    sums.difference += std::abs(patch.value[i] - now[i]) * patch.weight[i];
    sums.deviation += std::abs(patch.value[i] - mean) * patch.weight[i];
  }
  return sums;
}

}  // namespace omni::patches
