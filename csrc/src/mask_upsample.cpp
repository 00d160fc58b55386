#include "omni/mask_upsample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "mask_upsample_rows.h"
#include "omni/multiversion.h"

namespace omni {
namespace {

using upsample::Across;
using upsample::kBlock;
using upsample::kLanes;

// Where each output coordinate reads, and with which weights.
struct Axis {
  std::vector<int32_t> lo, hi;
  std::vector<float> w0, w1;
};

Axis makeAxis(int64_t in, int64_t out) {
  Axis axis;
  axis.lo.resize(out);
  axis.hi.resize(out);
  axis.w0.resize(out);
  axis.w1.resize(out);
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  for (int64_t i = 0; i < out; ++i) {
    // In double the product of two floats is exact: one rounding, as in a fused multiply-add.
    const double exact = static_cast<double>(scale) * (static_cast<double>(i) + 0.5) - 0.5;
    const float source = std::max(static_cast<float>(exact), 0.0f);
    const int64_t lo = std::min(static_cast<int64_t>(source), in - 1);
    axis.lo[i] = static_cast<int32_t>(lo);
    axis.hi[i] = static_cast<int32_t>(std::min(lo + 1, in - 1));
    axis.w1[i] = std::min(source - static_cast<float>(lo), 1.0f);
    axis.w0[i] = 1.0f - axis.w1[i];
  }
  return axis;
}

// Note [Skipping blocks]
// An interpolated value is a convex combination of its neighbours up to rounding: each of the two
// stages errs by less than 4 units of 2^-24 of its weighted inputs' magnitudes. Widening [min, max] by
// 2^-20 of the larger magnitude (plus the smallest normal number, for underflow) therefore bounds it,
// and a block whose bounds lie on one side of the threshold needs no interpolation. Non-finite values
// give unlimited bounds: such blocks are always computed.
float fromOrderedBits(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

OMNI_MULTIVERSION void widen(const int32_t* least, const int32_t* most, size_t n, float* low, float* high) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int32_t first = upsample::orderedBits(-kInfinity), last = upsample::orderedBits(kInfinity);
  for (size_t k = 0; k < n; ++k) {
    const float a = fromOrderedBits(least[k]), b = fromOrderedBits(most[k]);
    const float margin = std::max(std::fabs(a), std::fabs(b)) * 0x1p-20f + std::numeric_limits<float>::min();
    const bool finite = least[k] > first && most[k] < last;
    low[k] = finite ? a - margin : -kInfinity;
    high[k] = finite ? b + margin : kInfinity;
  }
}

// One source row: its bounds per block and, where a block was needed, its horizontal interpolation.
class SourceRow {
 public:
  SourceRow(const Across& across, int64_t width)
      : across_(across),
        width_(width),
        row_(static_cast<size_t>(width + upsample::kOverRead)),
        least_(across.begins.size()),
        most_(least_.size()),
        low_(least_.size()),
        high_(least_.size()),
        ready_(across.begins.size()),
        values_(across.begins.size() * kBlock) {}

  void load(const float* logits, int64_t index) {
    if (index_ == index) return;
    index_ = index;
    std::copy_n(logits + index * width_, width_, row_.begin());
    // the right neighbour of the last pixel is itself
    std::fill(row_.begin() + width_, row_.end(), row_[width_ - 1]);
    std::fill(ready_.begin(), ready_.end(), uint8_t{0});
    upsample::findRange(row_.data(), across_, least_.data(), most_.data());
    widen(least_.data(), most_.data(), least_.size(), low_.data(), high_.data());
  }

  // Every upsampled value that the block takes part in lies between these, rounding included.
  const float* low() const { return low_.data(); }
  const float* high() const { return high_.data(); }

  const float* values(int64_t block) {
    float* out = values_.data() + block * kBlock;
    if (!ready_[block]) {
      ready_[block] = 1;
      upsample::interpolateAcross(row_.data(), across_, block, out);
    }
    return out;
  }

 private:
  const Across& across_;
  int64_t width_;
  int64_t index_ = -1;
  std::vector<float> row_;
  std::vector<int32_t> least_, most_;  // of each block's pixels, as ordered bits
  std::vector<float> low_, high_;
  std::vector<uint8_t> ready_;
  std::vector<float> values_;
};

// The horizontal axis in whole blocks; what lies beyond the last column repeats it.
Across makeAcross(int64_t in, int64_t out) {
  Axis axis = makeAxis(in, out);
  const int64_t blocks = (out + kBlock - 1) / kBlock;
  const auto columns = static_cast<size_t>(blocks * kBlock);
  Across across;
  across.lo = std::move(axis.lo);
  across.w0 = std::move(axis.w0);
  across.w1 = std::move(axis.w1);
  across.lo.resize(columns, across.lo.back());
  across.w0.resize(columns, across.w0.back());
  across.w1.resize(columns, across.w1.back());
  across.steps.resize(columns);
  across.compact = true;
  for (size_t i = 0; i < columns; ++i) {
    across.steps[i] = across.lo[i] - across.lo[i / kLanes * kLanes];
    if (across.steps[i] >= kLanes) across.compact = false;
  }
  for (int64_t k = 0; k < blocks; ++k) {
    across.begins.push_back(across.lo[k * kBlock]);
    across.ends.push_back(across.lo[(k + 1) * kBlock - 1] + 2);
  }
  return across;
}

}  // namespace

BitPlane upsampleLogits(const float* logits, int64_t height, int64_t width, int64_t outHeight,
                        int64_t outWidth, float threshold) {
  checkMaskSize(height, width);
  BitPlane rows(outHeight, outWidth);
  const Axis down = makeAxis(height, outHeight);
  const Across across = makeAcross(width, outWidth);
  // Rows lo and hi of an output row are neighbours (or the same): one slot for even rows, one for odd.
  SourceRow slots[2] = {{across, width}, {across, width}};
  for (int64_t y = 0; y < outHeight; ++y) {
    SourceRow& top = slots[down.lo[y] & 1];
    SourceRow& bottom = slots[down.hi[y] & 1];
    top.load(logits, down.lo[y]);
    bottom.load(logits, down.hi[y]);
    uint64_t* line = rows.line(y);
    const float *topLow = top.low(), *topHigh = top.high();
    const float *bottomLow = bottom.low(), *bottomHigh = bottom.high();
    for (int64_t k = 0; k < rows.words; ++k) {
      if (std::min(topLow[k], bottomLow[k]) > threshold) {
        line[k] = ~uint64_t{0};
      } else if (!(std::max(topHigh[k], bottomHigh[k]) <= threshold)) {
        line[k] = upsample::thresholdBetween(top.values(k), bottom.values(k), down.w0[y], down.w1[y],
                                             threshold);
      }
    }
    line[rows.words - 1] &= rows.tailMask();
  }
  return rows;
}

}  // namespace omni
