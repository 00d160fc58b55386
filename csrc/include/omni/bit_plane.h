// Masks as bits: the form in which every mask kernel works.
//
// A plane has `lines` lines of `length` bits, each line padded to whole 64-bit words; padding bits are
// always zero. The lines are the rows of a mask (clean-up, boundaries) or its columns (COCO's RLE is
// column-major); `transpose` turns one into the other, see mask_turn.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace omni {

// Largest mask that any kernel accepts, in pixels; counts of runs stay far below 2^32.
constexpr int64_t kMaxMaskPixels = int64_t{1} << 28;

// A byte mask in memory of any layout; non-zero bytes are foreground. Strides in bytes, of any sign.
struct MaskView {
  const uint8_t* data;
  int64_t height;
  int64_t width;
  ptrdiff_t rowStride;
  ptrdiff_t columnStride;
};

struct BitPlane {
  // Zero-filled. Throws std::invalid_argument unless 1 <= lines, 1 <= length and their product is at
  // most kMaxMaskPixels.
  BitPlane(int64_t lines, int64_t length);

  uint64_t* line(int64_t i) { return bits.data() + i * words; }
  const uint64_t* line(int64_t i) const { return bits.data() + i * words; }
  // The bits of the last word of a line that are not padding.
  uint64_t tailMask() const { return ~uint64_t{0} >> (words * 64 - length); }

  int64_t lines;
  int64_t length;
  int64_t words = 0;  // per line
  std::vector<uint64_t> bits;
};

// Throws std::invalid_argument unless a mask of this size may be allocated.
void checkMaskSize(int64_t height, int64_t width);

BitPlane packRows(const MaskView& mask);
BitPlane packColumns(const MaskView& mask);
// The columns of a mask whose rows are contiguous bytes (columnStride 1), in one pass.
BitPlane packAcross(const MaskView& mask);
BitPlane transpose(const BitPlane& plane);

// Write the plane as rows of 0/1 bytes, `lines * length` of them, without padding.
void unpackRows(const BitPlane& rows, uint8_t* out);

// Set or clear the bits [begin, end) of a line.
void setBits(uint64_t* line, int64_t begin, int64_t end);
void clearBits(uint64_t* line, int64_t begin, int64_t end);

// 64 bytes -> 64 bits (bit i set where byte i is non-zero).
uint64_t packWord(const uint8_t* bytes);
// The same without SIMD; what packWord is on machines other than x86-64.
uint64_t packWordPortable(const uint8_t* bytes);

int64_t popcount(const uint64_t* words, int64_t n);

inline int trailingZeros(uint64_t v) { return __builtin_ctzll(v); }

}  // namespace omni
