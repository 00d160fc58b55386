#include "omni/flow_track.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "omni/multiversion.h"

namespace omni {
namespace {

constexpr int kPixels = kWindow * kWindow;
constexpr int kRing = kWindow + 2;  // the window with the ring that its gradient needs
constexpr int kUnit = 128;          // positions per pixel
constexpr double kValueUnit = 16.0;
constexpr double kStop = 1.0 / 64;  // a shorter step ends the iteration, in pixels
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A window's upper left sample, in whole pixels and 1/128.
struct Corner {
  int64_t x, y;
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

// False where the window or its ring would leave the padding.
bool cornerOf(const PaddedImage& image, double x, double y, Corner& out) {
  // The window is centred: it spans -7.5 .. 7.5.
  constexpr double kReach = kFlowPad - kWindow / 2 - 2;
  if (!(x >= -kReach && x <= static_cast<double>(image.width - 1) + kReach && y >= -kReach &&
        y <= static_cast<double>(image.height - 1) + kReach))
    return false;
  constexpr int64_t kHalf = (kWindow - 1) * kUnit / 2;
  const int64_t fx = static_cast<int64_t>(std::floor(x * kUnit + 0.5)) - kHalf;
  const int64_t fy = static_cast<int64_t>(std::floor(y * kUnit + 0.5)) - kHalf;
  out = {fx >> 7, fy >> 7, static_cast<int32_t>(fx & 127), static_cast<int32_t>(fy & 127)};
  return true;
}

// `rows` rows of kWindow bilinear samples from `corner`, in 1/16 grey value.
template <int rows>
inline void sample(const PaddedImage& image, const Corner& corner, int16_t* out, int stride) {
  const int16_t a1 = static_cast<int16_t>(corner.a), a0 = static_cast<int16_t>(kUnit - corner.a);
  const int16_t b1 = static_cast<int16_t>(corner.b), b0 = static_cast<int16_t>(kUnit - corner.b);
  int16_t lines[rows + 1][kWindow];
  const uint8_t* p = image.row(corner.y) + corner.x;
  for (int y = 0; y <= rows; ++y, p += image.stride)
    for (int x = 0; x < kWindow; ++x)
      lines[y][x] = static_cast<int16_t>(p[x] * a0 + p[x + 1] * a1);
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < kWindow; ++x)
      out[y * stride + x] =
          static_cast<int16_t>((lines[y][x] * b0 + lines[y + 1][x] * b1 + 512) >> 10);
}

inline int32_t dot(const int16_t* a, const int16_t* b) {
  int32_t sum = 0;  // |a b| <= 2040 * 4080: 256 of them fit
  for (int i = 0; i < kPixels; ++i) sum += static_cast<int32_t>(a[i]) * b[i];
  return sum;
}

// The template at (x, y), with the mask's pixels around (maskX, maskY) as weights.
OMNI_MULTIVERSION bool makePatch(const PaddedImage& image, const PaddedImage& mask, double x,
                                 double y, double maskX, double maskY, Patch& patch) {
  Corner corner, maskCorner;
  if (!cornerOf(image, x, y, corner) || !cornerOf(mask, maskX, maskY, maskCorner)) return false;
  --corner.x;
  --corner.y;
  int16_t ring[kRing * kRing];
  sample<kRing>(image, corner, ring, kRing);
  corner.x += kRing - kWindow;  // the ring's last columns
  sample<kRing>(image, corner, ring + kRing - kWindow, kRing);
  const int64_t mx = maskCorner.x + (maskCorner.a >= kUnit / 2);
  const int64_t my = maskCorner.y + (maskCorner.b >= kUnit / 2);
  for (int j = 0; j < kWindow; ++j) {
    const int16_t* above = ring + j * kRing + 1;
    const int16_t* here = above + kRing;
    const int16_t* below = here + kRing;
    const uint8_t* inside = mask.row(my + j) + mx;
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
  patch.count = 0;
  for (int i = 0; i < kPixels; ++i) patch.count += patch.weight[i];
  patch.xx = dot(patch.gx, patch.gx);
  patch.xy = dot(patch.gx, patch.gy);
  patch.yy = dot(patch.gy, patch.gy);
  return true;
}

struct Mismatch {
  int32_t x, y;  // gradient times difference
};

OMNI_MULTIVERSION Mismatch mismatch(const Patch& patch, const PaddedImage& image,
                                    const Corner& corner) {
  alignas(32) int16_t now[kPixels];
  sample<kWindow>(image, corner, now, kWindow);
  for (int i = 0; i < kPixels; ++i) now[i] = static_cast<int16_t>(patch.value[i] - now[i]);
  return {dot(patch.gx, now), dot(patch.gy, now)};
}

// Moves (dx, dy) to where the patch fits `image` best; false where it leaves.
bool refine(const Patch& patch, const PaddedImage& image, double x, double y, int iterations,
            double& dx, double& dy) {
  constexpr double kDamping = kNoise * kNoise * kValueUnit * kValueUnit;
  const double damping = kDamping * patch.count + 1.0;
  const double xx = patch.xx + damping, xy = patch.xy, yy = patch.yy + damping;
  const double det = xx * yy - xy * xy;
  for (int n = 0; n < iterations; ++n) {
    Corner corner;
    if (!cornerOf(image, x + dx, y + dy, corner)) return false;
    const Mismatch m = mismatch(patch, image, corner);
    const double stepX = (yy * m.x - xy * m.y) / det;
    const double stepY = (xx * m.y - xy * m.x) / det;
    dx += stepX;
    dy += stepY;
    if (stepX * stepX + stepY * stepY < kStop * kStop) break;
  }
  return true;
}

// Coarse to fine from (x, y) of level 0; `patch` is left as the finest template.
bool follow(const FlowPyramid& from, const FlowPyramid& to, const FlowPyramid& mask, double x,
            double y, double maskX, double maskY, int iterations, double& dx, double& dy,
            Patch& patch) {
  for (int level = static_cast<int>(from.size()) - 1; level >= 0; --level) {
    const double scale = 1.0 / static_cast<double>(1 << level);
    double sx = dx * scale, sy = dy * scale;
    if (!makePatch(from[level], mask[level], x * scale, y * scale, maskX * scale, maskY * scale,
                   patch) ||
        !refine(patch, to[level], x * scale, y * scale, iterations, sx, sy))
      return false;
    dx = sx / scale;
    dy = sy / scale;
  }
  return true;
}

// Mean absolute difference and contrast over the object's pixels, in grey values.
bool measure(const Patch& patch, const PaddedImage& image, double x, double y, FlowTrack& track) {
  Corner corner;
  if (patch.count == 0 || !cornerOf(image, x, y, corner)) return false;
  int16_t now[kPixels];
  sample<kWindow>(image, corner, now, kWindow);
  int32_t sum = 0, difference = 0, deviation = 0;
  for (int i = 0; i < kPixels; ++i) sum += patch.value[i] * patch.weight[i];
  const int32_t mean = sum / patch.count;
  for (int i = 0; i < kPixels; ++i) {
    difference += std::abs(patch.value[i] - now[i]) * patch.weight[i];
    deviation += std::abs(patch.value[i] - mean) * patch.weight[i];
  }
  const double unit = kValueUnit * patch.count;
  track.residual = difference / unit;
  track.contrast = deviation / unit;
  const double square = kValueUnit * unit;
  track.xx = patch.xx / square;
  track.xy = patch.xy / square;
  track.yy = patch.yy / square;
  return true;
}

// Length of (x, y), weighted by the structure tensor over its larger eigenvalue.
double seenDistance(const FlowTrack& t, double x, double y) {
  const double half = (t.xx - t.yy) / 2.0;
  const double largest = (t.xx + t.yy) / 2.0 + std::sqrt(half * half + t.xy * t.xy);
  const double square = t.xx * x * x + 2.0 * t.xy * x * y + t.yy * y * y;
  return largest > 0.0 ? std::sqrt(std::max(square, 0.0) / largest) : kInfinity;
}

}  // namespace

std::vector<FlowTrack> trackPoints(const LumaView& before, const LumaView& after,
                                   const LumaView& mask, const FlowBox& box,
                                   const std::vector<FlowPoint>& points,
                                   const std::vector<FlowPoint>& guesses, int levels,
                                   int iterations) {
  if (before.height != after.height || before.width != after.width ||
      before.height != mask.height || before.width != mask.width)
    throw std::invalid_argument("frames and mask must have one size");
  checkFlowSize(before.height, before.width);
  checkFlowBox(box, before.height, before.width);
  if (points.size() != guesses.size())
    throw std::invalid_argument("each point needs one guess");
  if (levels < 1 || levels > 8 || iterations < 1 || iterations > 100)
    throw std::invalid_argument("levels must be in [1, 8], iterations in [1, 100]");
  const FlowPyramid from = lumaPyramid(before, box, levels);
  const FlowPyramid to = lumaPyramid(after, box, levels);
  const FlowPyramid inside = maskPyramid(mask, box, levels);
  const double left = static_cast<double>(box.x0), top = static_cast<double>(box.y0);
  std::vector<FlowTrack> tracks;
  tracks.reserve(points.size());
  Patch patch, unused;
  for (size_t i = 0; i < points.size(); ++i) {
    const double x = points[i].x - left, y = points[i].y - top;
    double dx = guesses[i].x, dy = guesses[i].y;
    FlowTrack track{points[i].x + dx, points[i].y + dy, kInfinity, 0, 0, 0, 0, 0};
    if (follow(from, to, inside, x, y, x, y, iterations, dx, dy, patch) &&
        measure(patch, to[0], x + dx, y + dy, track)) {
      track.x = points[i].x + dx;
      track.y = points[i].y + dy;
      // Back from there with the same weights; it must not start from the answer.
      double bx = -guesses[i].x, by = -guesses[i].y;
      if (follow(to, from, inside, x + dx, y + dy, x, y, iterations, bx, by, unused))
        track.backward = seenDistance(track, dx + bx, dy + by);
    }
    tracks.push_back(track);
  }
  return tracks;
}

}  // namespace omni
