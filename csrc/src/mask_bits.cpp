#include "omni/bit_plane.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

#include "omni/multiversion.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bit planes assume a little-endian machine"
#endif

namespace omni {
namespace {

constexpr uint64_t kLowBits = 0x0101010101010101ull;
constexpr uint64_t kSeven = 0x7f7f7f7f7f7f7f7full;

// bytes of 0/1 for each value of eight bits
std::array<uint64_t, 256> makeSpreadTable() {
  std::array<uint64_t, 256> table{};
  for (uint64_t v = 0; v < 256; ++v)
    for (int bit = 0; bit < 8; ++bit) table[v] |= ((v >> bit) & 1) << (8 * bit);
  return table;
}
const std::array<uint64_t, 256> kSpread = makeSpreadTable();

// One line of the plane from `length` bytes that lie `stride` apart.
OMNI_MULTIVERSION void packLine(const uint8_t* data, ptrdiff_t stride, int64_t length, uint64_t* line) {
  const int64_t whole = stride == 1 ? length / 64 : 0;
  for (int64_t k = 0; k < whole; ++k) line[k] = packWord(data + 64 * k);
  uint8_t bytes[64];
  for (int64_t begin = 64 * whole; begin < length; begin += 64) {
    const int64_t n = std::min<int64_t>(64, length - begin);
    std::memset(bytes, 0, sizeof bytes);
    for (int64_t i = 0; i < n; ++i) bytes[i] = data[(begin + i) * stride];
    line[begin / 64] = packWord(bytes);
  }
}

BitPlane packLines(const uint8_t* data, int64_t lines, int64_t length, ptrdiff_t lineStride,
                   ptrdiff_t stride) {
  BitPlane plane(lines, length);
  for (int64_t i = 0; i < lines; ++i) packLine(data + i * lineStride, stride, length, plane.line(i));
  return plane;
}

MaskView transposed(const MaskView& mask) {
  return {mask.data, mask.width, mask.height, mask.columnStride, mask.rowStride};
}

// Calls edit(word, bits) for every word that holds part of [begin, end).
template <class Edit>
void editBits(uint64_t* line, int64_t begin, int64_t end, Edit edit) {
  if (begin >= end) return;
  const int64_t first = begin / 64, last = (end - 1) / 64;
  const uint64_t head = ~uint64_t{0} << (begin % 64);
  const uint64_t tail = ~uint64_t{0} >> (63 - (end - 1) % 64);
  if (first == last) {
    edit(line[first], head & tail);
    return;
  }
  edit(line[first], head);
  for (int64_t k = first + 1; k < last; ++k) edit(line[k], ~uint64_t{0});
  edit(line[last], tail);
}

}  // namespace

void checkMaskSize(int64_t height, int64_t width) {
  if (height < 1 || width < 1 || width > kMaxMaskPixels || height > kMaxMaskPixels / width)
    throw std::invalid_argument("mask size must have 1 to " + std::to_string(kMaxMaskPixels) +
                                " pixels, got " + std::to_string(height) + " x " + std::to_string(width));
}

BitPlane::BitPlane(int64_t lines_, int64_t length_) : lines(lines_), length(length_) {
  checkMaskSize(lines, length);
  words = (length + 63) / 64;
  bits.resize(static_cast<size_t>(lines * words));
}

uint64_t packWordPortable(const uint8_t* bytes) {
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) {
    uint64_t v;
    std::memcpy(&v, bytes + 8 * i, 8);
    const uint64_t nonZero = ((((v & kSeven) + kSeven) | v) >> 7) & kLowBits;
    // the product gathers bit 8j into bit 56 + j
    word |= ((nonZero * 0x0102040810204080ull) >> 56) << (8 * i);
  }
  return word;
}

uint64_t packWord(const uint8_t* bytes) {
#if defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  uint64_t word = 0;
  for (int i = 0; i < 4; ++i) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16 * i));
    const auto isZero = static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(v, zero)));
    word |= static_cast<uint64_t>(~isZero & 0xffffu) << (16 * i);
  }
  return word;
#else
  return packWordPortable(bytes);
#endif
}

BitPlane packRows(const MaskView& mask) {
  // Bytes are read along the shorter stride; bits are turned on the way.
  if (mask.rowStride == 1 && mask.columnStride != 1) return packAcross(transposed(mask));
  return packLines(mask.data, mask.height, mask.width, mask.rowStride, mask.columnStride);
}

BitPlane packColumns(const MaskView& mask) { return packRows(transposed(mask)); }

void unpackRows(const BitPlane& rows, uint8_t* out) {
  for (int64_t y = 0; y < rows.lines; ++y, out += rows.length) {
    const uint64_t* line = rows.line(y);
    const int64_t whole = rows.length / 64;
    for (int64_t k = 0; k < whole; ++k) {
      const uint64_t word = line[k];
      if (word + 1 <= 1) {  // all zeros or all ones
        std::memset(out + 64 * k, static_cast<int>(word & 1), 64);
        continue;
      }
      for (int i = 0; i < 8; ++i) std::memcpy(out + 64 * k + 8 * i, &kSpread[(word >> (8 * i)) & 0xff], 8);
    }
    for (int64_t x = 64 * whole; x < rows.length; ++x)
      out[x] = static_cast<uint8_t>((line[whole] >> (x - 64 * whole)) & 1);
  }
}

void setBits(uint64_t* line, int64_t begin, int64_t end) {
  editBits(line, begin, end, [](uint64_t& word, uint64_t bits) { word |= bits; });
}

void clearBits(uint64_t* line, int64_t begin, int64_t end) {
  editBits(line, begin, end, [](uint64_t& word, uint64_t bits) { word &= ~bits; });
}

OMNI_MULTIVERSION int64_t popcount(const uint64_t* words, int64_t n) {
  int64_t total = 0;
  for (int64_t i = 0; i < n; ++i) total += __builtin_popcountll(words[i]);
  return total;
}

}  // namespace omni
