#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "omni/flow_track.h"

namespace omni {
namespace {

constexpr int64_t kReach = 4;  // the tensor's window spans 9 x 9 pixels

// det / trace of the structure tensor around a pixel of a padded crop, in grey values^2.
double cornerness(const PaddedImage& luma, const PaddedImage& mask, int64_t x, int64_t y) {
  int64_t xx = 0, xy = 0, yy = 0;
  for (int64_t j = y - kReach; j <= y + kReach; ++j) {
    const uint8_t *above = luma.row(j - 1), *here = luma.row(j), *below = luma.row(j + 1);
    const uint8_t* inside = mask.row(j);
    int32_t lineXX = 0, lineXY = 0, lineYY = 0;
    for (int64_t i = x - kReach; i <= x + kReach; ++i) {
      const int32_t gx = (here[i + 1] - here[i - 1]) * inside[i];
      const int32_t gy = (below[i] - above[i]) * inside[i];
      lineXX += gx * gx;
      lineXY += gx * gy;
      lineYY += gy * gy;
    }
    xx += lineXX;
    xy += lineXY;
    yy += lineYY;
  }
  // Below 2^24 each: exact in double. One in 256 of the trace keeps edges, which have no corner, in order.
  const double trace = static_cast<double>(xx + yy);
  const double det = static_cast<double>(xx) * static_cast<double>(yy) -
                     static_cast<double>(xy) * static_cast<double>(xy);
  return trace == 0.0 ? 0.0 : det / trace + trace / 256.0;
}

}  // namespace

std::vector<FlowPoint> selectPoints(const LumaView& luma, const LumaView& mask, const FlowBox& box,
                                    int64_t count) {
  if (luma.height != mask.height || luma.width != mask.width)
    throw std::invalid_argument("frame and mask must have one size");
  checkFlowSize(luma.height, luma.width);
  checkFlowBox(box, luma.height, luma.width);
  if (count < 1 || count > 4096) throw std::invalid_argument("count must be in [1, 4096]");
  int64_t area = 0;
  for (int64_t y = box.y0; y < box.y1; ++y)
    for (int64_t x = box.x0; x < box.x1; ++x) area += mask.row(y)[x] != 0;
  // A ring around the box, where there is one, so that gradients at the contour are real.
  const FlowBox crop{std::max<int64_t>(box.x0 - kReach - 1, 0),
                     std::max<int64_t>(box.y0 - kReach - 1, 0),
                     std::min(box.x1 + kReach + 1, luma.width),
                     std::min(box.y1 + kReach + 1, luma.height)};
  const PaddedImage picture = std::move(lumaPyramid(luma, crop, 1)[0]);
  const PaddedImage inside = std::move(maskPyramid(mask, crop, 1)[0]);
  const double spacing = std::sqrt(static_cast<double>(area) / static_cast<double>(count));
  const int64_t cell = std::max<int64_t>(3, static_cast<int64_t>(std::ceil(spacing)));
  const int64_t step = (cell + kCandidates - 1) / kCandidates;
  std::vector<FlowPoint> points;
  for (int64_t top = box.y0; top < box.y1; top += cell) {
    for (int64_t left = box.x0; left < box.x1; left += cell) {
      double best = 0.0;
      FlowPoint point{};
      for (int64_t y = top; y < std::min(top + cell, box.y1); y += step)
        for (int64_t x = left; x < std::min(left + cell, box.x1); x += step) {
          if (mask.row(y)[x] == 0) continue;
          const double value = cornerness(picture, inside, x - crop.x0, y - crop.y0);
          if (value > best) {
            best = value;
            point = {static_cast<double>(x), static_cast<double>(y)};
          }
        }
      if (best > 0.0) points.push_back(point);
    }
  }
  return points;
}

}  // namespace omni
