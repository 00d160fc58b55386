#include "omni/flow_track.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "flow_patch.h"

namespace omni {
namespace {

using patches::kUnit;
using patches::Patch;

constexpr double kValueUnit = 16.0;
constexpr double kStop = 1.0 / 32;  // a shorter step ends the iteration, in pixels
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A window's upper left sample, in whole pixels and 1/128.
struct Corner {
  int64_t x, y;
  int32_t a, b;

  patches::Corner in(const PaddedImage& image) const {
    return {image.row(y) + x, static_cast<ptrdiff_t>(image.stride), a, b};
  }
};

// v rounded down; |v| < 2^31. The library's function is a call on the oldest of processors.
int64_t floorOf(double v) {
  const auto whole = static_cast<int64_t>(v);
  return whole - (v < static_cast<double>(whole));
}

// False where the window or its ring would leave the padding.
bool cornerOf(const PaddedImage& image, double x, double y, Corner& out) {
  // The window is centred: it spans -7.5 .. 7.5.
  constexpr double kReach = kFlowPad - kWindow / 2 - 2;
  if (!(x >= -kReach && x <= static_cast<double>(image.width - 1) + kReach && y >= -kReach &&
        y <= static_cast<double>(image.height - 1) + kReach))
    return false;
  constexpr int64_t kHalf = (kWindow - 1) * kUnit / 2;
  const int64_t fx = floorOf(x * kUnit + 0.5) - kHalf;
  const int64_t fy = floorOf(y * kUnit + 0.5) - kHalf;
  out = {fx >> 7, fy >> 7, static_cast<int32_t>(fx & 127), static_cast<int32_t>(fy & 127)};
  return true;
}

// The template at (x, y), with the mask's pixels around (maskX, maskY) as weights.
bool patchAt(const PaddedImage& image, const PaddedImage& mask, double x, double y, double maskX,
             double maskY, Patch& patch) {
  Corner corner, maskCorner;
  if (!cornerOf(image, x, y, corner) || !cornerOf(mask, maskX, maskY, maskCorner)) return false;
  --corner.x;
  --corner.y;
  const int64_t mx = maskCorner.x + (maskCorner.a >= kUnit / 2);
  const int64_t my = maskCorner.y + (maskCorner.b >= kUnit / 2);
  patches::makePatch(corner.in(image), mask.row(my) + mx, static_cast<ptrdiff_t>(mask.stride), patch);
  return true;
}

// Moves (dx, dy) to where the patch fits `image` best; false where it leaves.
bool refine(const Patch& patch, const PaddedImage& image, double x, double y, int iterations, double& dx,
            double& dy) {
  constexpr double kDamping = kNoise * kNoise * kValueUnit * kValueUnit;
  const double damping = kDamping * patch.count + 1.0;
  const double xx = patch.xx + damping, xy = patch.xy, yy = patch.yy + damping;
  const double det = xx * yy - xy * xy;
  for (int n = 0; n < iterations; ++n) {
    Corner corner;
    if (!cornerOf(image, x + dx, y + dy, corner)) return false;
    const patches::Mismatch m = patches::mismatch(patch, corner.in(image));
    const double stepX = (yy * m.x - xy * m.y) / det;
    const double stepY = (xx * m.y - xy * m.x) / det;
    dx += stepX;
    dy += stepY;
    // As far as the window can tell: along an edge it would go on for ever.
    const double square = xx * stepX * stepX + 2.0 * xy * stepX * stepY + yy * stepY * stepY;
    if (square < kStop * kStop * (xx + yy)) break;
  }
  return true;
}

// Coarse to fine from (x, y) of level 0; `patch` is left as the finest template.
bool follow(const FlowPyramid& from, const FlowPyramid& to, const FlowPyramid& mask, double x, double y,
            double maskX, double maskY, int iterations, double& dx, double& dy, Patch& patch) {
  for (int level = static_cast<int>(from.size()) - 1; level >= 0; --level) {
    const double scale = 1.0 / static_cast<double>(1 << level);
    double sx = dx * scale, sy = dy * scale;
    if (!patchAt(from[level], mask[level], x * scale, y * scale, maskX * scale, maskY * scale, patch) ||
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
  const patches::Fit sums = patches::fit(patch, corner.in(image));
  const double unit = kValueUnit * patch.count;
  track.residual = sums.difference / unit;
  track.contrast = sums.deviation / unit;
  const double square = kValueUnit * unit;
  track.xx = patch.xx / square;
  track.xy = patch.xy / square;
  track.yy = patch.yy / square;
  return true;
}

double largerEigenvalue(const FlowTrack& t) {
  const double half = (t.xx - t.yy) / 2.0;
  return (t.xx + t.yy) / 2.0 + std::sqrt(half * half + t.xy * t.xy);
}

// Length of (x, y), weighted by the structure tensor over its larger eigenvalue.
double seenDistance(const FlowTrack& t, double x, double y) {
  const double largest = largerEigenvalue(t);
  const double square = t.xx * x * x + 2.0 * t.xy * x * y + t.yy * y * y;
  return largest > 0.0 ? std::sqrt(std::max(square, 0.0) / largest) : kInfinity;
}

}  // namespace

std::vector<FlowTrack> trackPoints(const LumaView& before, const LumaView& after, const LumaView& mask,
                                   const FlowBox& box, const std::vector<FlowPoint>& points,
                                   const std::vector<FlowPoint>& guesses, int levels, int iterations) {
  if (before.height != after.height || before.width != after.width || before.height != mask.height ||
      before.width != mask.width)
    throw std::invalid_argument("frames and mask must have one size");
  checkFlowSize(before.height, before.width);
  checkFlowBox(box, before.height, before.width);
  if (points.size() != guesses.size()) throw std::invalid_argument("each point needs one guess");
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

Belief believe(const FlowTrack& track) {
  const double back = track.backward / kBackwardScale;
  const double fit = track.residual / (kGreyNoise + 0.5 * track.contrast);
  const double square = fit * fit;
  const double scale = largerEigenvalue(track) + kTextureNoise;
  return {1.0 / (1.0 + back * back) / (1.0 + square * square), track.xx / scale, track.xy / scale,
          track.yy / scale};
}

}  // namespace omni
