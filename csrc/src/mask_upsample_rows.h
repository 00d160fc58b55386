// The inner loops of the upsampling, each in a portable and an AVX2 version that give the same bits.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace omni::upsample {

constexpr int kBlock = 64;             // columns handled together: one word of the plane
constexpr int kLanes = 8;              // columns of one vector
constexpr int kOverRead = 2 * kLanes;  // source pixels beyond the last that may be read

// What the columns of the output read, in whole blocks.
struct Across {
  std::vector<int32_t> lo;            // the left neighbour; the right one is beside it
  std::vector<int32_t> steps;         // from the left neighbour of the first of the column's kLanes
  std::vector<float> w0, w1;          // the neighbours' weights
  std::vector<int32_t> begins, ends;  // of each block: the source pixels it reads
  bool compact;                       // no step is kLanes or more
};

// A float's bits as an integer of the same order, in which NaN lies beyond the infinities.
inline int32_t orderedBits(float v) {
  int32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// Least and greatest ordered bits of the source pixels of each block, and of some beyond its end.
void findRange(const float* row, const Across& across, int32_t* least, int32_t* most);

// kBlock values of a source row, from its pixels: fma(left, w0, right * w1).
void interpolateAcross(const float* row, const Across& across, int64_t block, float* out);

// One word of the mask between two such rows: bit i is fma(top, w0, bottom * w1) > threshold.
uint64_t thresholdBetween(const float* top, const float* bottom, float w0, float w1, float threshold);

bool hasAvx2();
void findRangeAvx2(const float* row, const Across& across, int32_t* least, int32_t* most);
void interpolateAcrossAvx2(const float* row, const Across& across, int64_t block, float* out);
uint64_t thresholdBetweenAvx2(const float* top, const float* bottom, float w0, float w1, float threshold);

}  // namespace omni::upsample
