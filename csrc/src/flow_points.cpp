#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "omni/flow_track.h"
#include "omni/multiversion.h"

namespace omni {
namespace {

constexpr int64_t kReach = 4;  // the tensor's window spans 9 x 9 pixels

// Structure tensors around the pixels of one row of a padded crop: products of gradients inside the object,
// summed down 2 kReach + 1 rows once for the whole row, then across for each pixel asked for.
class TensorRow {
 public:
  TensorRow(const PaddedImage& luma, const PaddedImage& mask)
      : luma_(luma), mask_(mask), xx_(luma.width + 2 * kReach), xy_(xx_.size()), yy_(xx_.size()) {}

  // Pixels x0 <= x < x1 of row y may be asked for next.
  void load(int64_t y, int64_t x0, int64_t x1) {
    const int64_t n = x1 - x0 + 2 * kReach;
    first_ = x0;
    std::fill_n(xx_.begin(), n, 0);
    std::fill_n(xy_.begin(), n, 0);
    std::fill_n(yy_.begin(), n, 0);
    for (int64_t j = y - kReach; j <= y + kReach; ++j) {
      const int64_t x = x0 - kReach;
      addProducts(luma_.row(j - 1) + x, luma_.row(j) + x, luma_.row(j + 1) + x, mask_.row(j) + x, n,
                  xx_.data(), xy_.data(), yy_.data());
    }
  }

  // det / trace of the tensor, in grey values^2.
  double cornerness(int64_t x) const {
    int32_t xx = 0, xy = 0, yy = 0;
    for (int64_t i = x - first_; i <= x - first_ + 2 * kReach; ++i) {
      xx += xx_[i];
      xy += xy_[i];
      yy += yy_[i];
    }
    // Below 2^24 each: exact in double. One in 256 of the trace keeps edges, which have no corner, in order.
    const double trace = static_cast<double>(xx + yy);
    const double det = static_cast<double>(xx) * static_cast<double>(yy) -
                       static_cast<double>(xy) * static_cast<double>(xy);
    return trace == 0.0 ? 0.0 : det / trace + trace / 256.0;
  }

 private:
  OMNI_MULTIVERSION static void addProducts(const uint8_t* above, const uint8_t* here, const uint8_t* below,
                                            const uint8_t* inside, int64_t n, int32_t* xx, int32_t* xy,
                                            int32_t* yy) {
    for (int64_t i = 0; i < n; ++i) {
      const int32_t gx = (here[i + 1] - here[i - 1]) * inside[i];
      const int32_t gy = (below[i] - above[i]) * inside[i];
      xx[i] += gx * gx;
      xy[i] += gx * gy;
      yy[i] += gy * gy;
    }
  }

  const PaddedImage &luma_, &mask_;
  int64_t first_ = 0;
  std::vector<int32_t> xx_, xy_, yy_;
};

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
  const FlowBox crop{std::max<int64_t>(box.x0 - kReach - 1, 0), std::max<int64_t>(box.y0 - kReach - 1, 0),
                     std::min(box.x1 + kReach + 1, luma.width), std::min(box.y1 + kReach + 1, luma.height)};
  const PaddedImage picture = std::move(lumaPyramid(luma, crop, 1)[0]);
  const PaddedImage inside = std::move(maskPyramid(mask, crop, 1)[0]);
  const double spacing = std::sqrt(static_cast<double>(area) / static_cast<double>(count));
  const int64_t cell = std::max<int64_t>(3, static_cast<int64_t>(std::ceil(spacing)));
  const int64_t step = (cell + kCandidates - 1) / kCandidates;
  TensorRow tensors(picture, inside);
  std::vector<FlowPoint> points;
  const int64_t columns = (box.x1 - box.x0 + cell - 1) / cell;
  std::vector<double> best(columns);
  std::vector<FlowPoint> chosen(columns);
  for (int64_t top = box.y0; top < box.y1; top += cell) {
    std::fill(best.begin(), best.end(), 0.0);
    for (int64_t y = top; y < std::min(top + cell, box.y1); y += step) {
      tensors.load(y - crop.y0, box.x0 - crop.x0, box.x1 - crop.x0);
      for (int64_t k = 0; k < columns; ++k) {
        const int64_t left = box.x0 + k * cell;
        for (int64_t x = left; x < std::min(left + cell, box.x1); x += step) {
          if (mask.row(y)[x] == 0) continue;
          const double value = tensors.cornerness(x - crop.x0);
          if (value > best[k]) {
            best[k] = value;
            chosen[k] = {static_cast<double>(x), static_cast<double>(y)};
          }
        }
      }
    }
    for (int64_t k = 0; k < columns; ++k)
      if (best[k] > 0.0) points.push_back(chosen[k]);
  }
  return points;
}

}  // namespace omni
