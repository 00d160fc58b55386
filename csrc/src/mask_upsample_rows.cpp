#include "mask_upsample_rows.h"

#include <algorithm>

#include "omni/bit_plane.h"

namespace omni::upsample {

void findRange(const float* row, const Across& across, int32_t* least, int32_t* most) {
  if (hasAvx2()) return findRangeAvx2(row, across, least, most);
  for (size_t k = 0; k < across.begins.size(); ++k) {
    least[k] = most[k] = orderedBits(row[across.begins[k]]);
    for (int32_t at = across.begins[k] + 1; at < across.ends[k]; ++at) {
      const int32_t key = orderedBits(row[at]);
      least[k] = std::min(least[k], key);
      most[k] = std::max(most[k], key);
    }
  }
}

void interpolateAcross(const float* row, const Across& across, int64_t block, float* out) {
  if (across.compact && hasAvx2()) return interpolateAcrossAvx2(row, across, block, out);
  const int64_t begin = block * kBlock;
  for (int64_t i = 0; i < kBlock; ++i) {
    const float* left = row + across.lo[begin + i];
    out[i] = __builtin_fmaf(left[0], across.w0[begin + i], left[1] * across.w1[begin + i]);
  }
}

uint64_t thresholdBetween(const float* top, const float* bottom, float w0, float w1, float threshold) {
  if (hasAvx2()) return thresholdBetweenAvx2(top, bottom, w0, w1, threshold);
  uint8_t bytes[kBlock];
  for (int i = 0; i < kBlock; ++i) bytes[i] = __builtin_fmaf(top[i], w0, bottom[i] * w1) > threshold;
  return packWord(bytes);
}

}  // namespace omni::upsample
