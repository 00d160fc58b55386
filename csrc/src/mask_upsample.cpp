#include "omni/mask_upsample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "omni/multiversion.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace omni {
namespace {

constexpr int kBlock = 64;  // columns handled together: one word of the plane

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

// Every upsampled value that a source row's block takes part in lies between these, rounding included.
struct Bounds {
  float low, high;
};

// Note [Skipping blocks]
// An interpolated value is a convex combination of its neighbours up to rounding: each of the two
// stages errs by less than 4 units of 2^-24 of its weighted inputs' magnitudes. Widening [min, max] by
// 2^-20 of the larger magnitude (plus the smallest normal number, for underflow) therefore bounds it,
// and a block whose bounds lie on one side of the threshold needs no interpolation. Non-finite values
// give unlimited bounds: such blocks are always computed.
// Float bits as integers of the same order, in which NaN lies beyond the infinities.
int32_t orderedBits(float v) {
  int32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

float fromOrderedBits(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

Bounds boundsOf(const int32_t* keys, int64_t n) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  int32_t lowKey = keys[0], highKey = keys[0];
  for (int64_t i = 1; i < n; ++i) {
    lowKey = std::min(lowKey, keys[i]);
    highKey = std::max(highKey, keys[i]);
  }
  if (lowKey <= orderedBits(-kInfinity) || highKey >= orderedBits(kInfinity))
    return {-kInfinity, kInfinity};
  const float low = fromOrderedBits(lowKey), high = fromOrderedBits(highKey);
  const float margin = std::max(std::fabs(low), std::fabs(high)) * 0x1p-20f +
                       std::numeric_limits<float>::min();
  return {low - margin, high + margin};
}

// A source pixel and its right neighbour.
struct Pair {
  float left, right;
};

// Not multi-versioned on purpose: compilers would use gathers, which are slower than plain loads.
void gatherPairs(const float* row, const int32_t* lo, int64_t n, Pair* out) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(out + i, row + lo[i], sizeof(Pair));
}

OMNI_MULTIVERSION void interpolateAcross(const Pair* pairs, const float* w0, const float* w1,
                                         int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = __builtin_fmaf(pairs[i].left, w0[i], pairs[i].right * w1[i]);
}

// One word of the mask, between two source rows.
OMNI_MULTIVERSION uint64_t thresholdBetween(const float* top, const float* bottom, float w0,
                                            float w1, float threshold) {
  float values[kBlock];
  for (int i = 0; i < kBlock; ++i) values[i] = __builtin_fmaf(top[i], w0, bottom[i] * w1);
#if defined(__SSE2__)
  const __m128 limit = _mm_set1_ps(threshold);
  uint64_t word = 0;
  for (int i = 0; i < kBlock; i += 4) {
    const int above = _mm_movemask_ps(_mm_cmpgt_ps(_mm_loadu_ps(values + i), limit));
    word |= static_cast<uint64_t>(static_cast<unsigned>(above)) << i;
  }
  return word;
#else
  uint8_t bytes[kBlock];
  for (int i = 0; i < kBlock; ++i) bytes[i] = values[i] > threshold;
  return packWord(bytes);
#endif
}

// One source row: its bounds per block and, where a block was needed, its horizontal interpolation.
class SourceRow {
 public:
  SourceRow(const Axis& across, int64_t width, int64_t blocks)
      : across_(across),
        width_(width),
        row_(width + 1),
        keys_(width + 1),
        bounds_(blocks),
        ready_(blocks),
        values_(blocks * kBlock) {}

  void load(const float* logits, int64_t index) {
    if (index_ == index) return;
    index_ = index;
    std::copy_n(logits + index * width_, width_, row_.begin());
    row_[width_] = row_[width_ - 1];  // the right neighbour of the last pixel is itself
    std::transform(row_.begin(), row_.end(), keys_.begin(), orderedBits);
    std::fill(ready_.begin(), ready_.end(), uint8_t{0});
    for (size_t k = 0; k < bounds_.size(); ++k) {
      const int64_t begin = across_.lo[first(k)];
      bounds_[k] = boundsOf(&keys_[begin], across_.lo[last(k)] + 2 - begin);
    }
  }

  const Bounds& bounds(int64_t block) const { return bounds_[block]; }

  const float* values(int64_t block) {
    float* out = values_.data() + block * kBlock;
    if (!ready_[block]) {
      ready_[block] = 1;
      const int64_t x = first(block), n = last(block) + 1 - x;
      Pair pairs[kBlock];
      gatherPairs(row_.data(), &across_.lo[x], n, pairs);
      interpolateAcross(pairs, &across_.w0[x], &across_.w1[x], n, out);
    }
    return out;
  }

 private:
  int64_t first(int64_t block) const { return block * kBlock; }
  int64_t last(int64_t block) const {
    return std::min<int64_t>((block + 1) * kBlock, across_.lo.size()) - 1;
  }

  const Axis& across_;
  int64_t width_;
  int64_t index_ = -1;
  std::vector<float> row_;
  std::vector<int32_t> keys_;
  std::vector<Bounds> bounds_;
  std::vector<uint8_t> ready_;
  std::vector<float> values_;
};

}  // namespace

BitPlane upsampleLogits(const float* logits, int64_t height, int64_t width, int64_t outHeight,
                        int64_t outWidth, float threshold) {
  checkMaskSize(height, width);
  BitPlane rows(outHeight, outWidth);
  const Axis down = makeAxis(height, outHeight), across = makeAxis(width, outWidth);
  // Rows lo and hi of an output row are neighbours (or the same): one slot for even rows, one for odd.
  SourceRow slots[2] = {{across, width, rows.words}, {across, width, rows.words}};
  for (int64_t y = 0; y < outHeight; ++y) {
    SourceRow& top = slots[down.lo[y] & 1];
    SourceRow& bottom = slots[down.hi[y] & 1];
    top.load(logits, down.lo[y]);
    bottom.load(logits, down.hi[y]);
    uint64_t* line = rows.line(y);
    for (int64_t k = 0; k < rows.words; ++k) {
      const Bounds &a = top.bounds(k), &b = bottom.bounds(k);
      if (std::min(a.low, b.low) > threshold) {
        line[k] = ~uint64_t{0};
      } else if (!(std::max(a.high, b.high) <= threshold)) {
        line[k] =
            thresholdBetween(top.values(k), bottom.values(k), down.w0[y], down.w1[y], threshold);
      }
    }
    line[rows.words - 1] &= rows.tailMask();
  }
  return rows;
}

}  // namespace omni
