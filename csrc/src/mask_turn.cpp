// Rows of a mask -> its columns.
//
// Note [Turning]
// Eight lines are first folded into one line of bytes: bit i of byte x is pixel x of line i. From bytes
// of 0/1 that is a sum, from bits a transposition of 8 x 8. Eight such folds are then woven into words:
// byte g of word x is byte x of fold g, so that word x holds 64 pixels down column x.
#include <algorithm>
#include <cstring>

#include "omni/bit_plane.h"
#include "omni/multiversion.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace omni {
namespace {

constexpr int64_t kFold = 8;    // lines folded into one
constexpr int64_t kFolds = 8;   // folds woven into words
constexpr int64_t kWoven = 16;  // columns woven together

// Eight rows of bytes, non-zero is 1.
OMNI_MULTIVERSION void foldBytes(const uint8_t* data, ptrdiff_t stride, int64_t width, uint8_t* fold) {
  for (int64_t x = 0; x < width; ++x) {
    uint8_t bits = 0;
    for (int i = kFold - 1; i >= 0; --i)
      bits = static_cast<uint8_t>(bits + bits + (data[i * stride + x] != 0));
    fold[x] = bits;
  }
}

// Fewer than eight rows.
void foldRest(const uint8_t* data, ptrdiff_t stride, int64_t rows, int64_t width, uint8_t* fold) {
  std::fill_n(fold, width, uint8_t{0});
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t x = 0; x < width; ++x)
      fold[x] = static_cast<uint8_t>(fold[x] | (data[i * stride + x] != 0) << i);
}

// Bit j of byte i becomes bit i of byte j in each word: three rounds of swaps (Hacker's Delight 7-3).
constexpr int kShifts[3] = {7, 14, 28};
constexpr uint64_t kSwaps[3] = {0x00aa00aa00aa00aaull, 0x0000cccc0000ccccull, 0x00000000f0f0f0f0ull};

// One word of each of eight lines, `words` apart.
void foldWord(const uint64_t* bits, int64_t words, uint8_t* fold) {
#if defined(__SSE2__)
  __m128i a[4], b[4];
  const auto line = [&](int i) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bits + i * words));
  };
  for (int i = 0; i < 4; ++i) a[i] = _mm_unpacklo_epi8(line(2 * i), line(2 * i + 1));
  for (int i = 0; i < 2; ++i) {
    b[i] = _mm_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
    b[2 + i] = _mm_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    a[2 * i] = _mm_unpacklo_epi32(b[2 * i], b[2 * i + 1]);
    a[2 * i + 1] = _mm_unpackhi_epi32(b[2 * i], b[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int round = 0; round < 3; ++round) {
      const __m128i swap = _mm_and_si128(_mm_xor_si128(a[i], _mm_srli_epi64(a[i], kShifts[round])),
                                         _mm_set1_epi64x(static_cast<long long>(kSwaps[round])));
      a[i] = _mm_xor_si128(a[i], _mm_xor_si128(swap, _mm_slli_epi64(swap, kShifts[round])));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(fold + 16 * i), a[i]);
  }
#else
  for (int j = 0; j < 8; ++j) {
    uint64_t v = 0;
    for (int i = 0; i < 8; ++i) v |= ((bits[i * words] >> (8 * j)) & 0xff) << (8 * i);
    for (int round = 0; round < 3; ++round) {
      const uint64_t swap = (v ^ (v >> kShifts[round])) & kSwaps[round];
      v ^= swap ^ (swap << kShifts[round]);
    }
    std::memcpy(fold + 8 * j, &v, sizeof v);
  }
#endif
}

// Eight lines of bits. `fold` has room for whole words.
void foldBits(const uint64_t* bits, int64_t words, uint8_t* fold) {
  for (int64_t k = 0; k < words; ++k, fold += 64) {
    uint64_t any = 0, all = ~uint64_t{0};
    for (int i = 0; i < kFold; ++i) {
      any |= bits[i * words + k];
      all &= bits[i * words + k];
    }
    if (any == 0 || all == ~uint64_t{0})
      std::memset(fold, static_cast<int>(any & 0xff), 64);
    else
      foldWord(bits + k, words, fold);
  }
}

// Eight folds, `stride` apart, -> one word in each of `width` lines that lie `words` apart. Reads whole
// groups of kWoven columns.
void weave(const uint8_t* folds, int64_t stride, int64_t width, uint64_t* out, int64_t words) {
  for (int64_t x = 0; x < width; x += kWoven) {
    uint64_t woven[kWoven];
#if defined(__SSE2__)
    __m128i a[8], b[8];
    for (int g = 0; g < 8; ++g)
      a[g] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(folds + g * stride + x));
    __m128i any = a[0];
    for (int g = 1; g < 8; ++g) any = _mm_or_si128(any, a[g]);
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) == 0xffff)
      continue;  // the lines start as zeros
    for (int i = 0; i < 4; ++i) {
      b[i] = _mm_unpacklo_epi8(a[2 * i], a[2 * i + 1]);      // columns 0..7, folds 2i and 2i + 1
      b[4 + i] = _mm_unpackhi_epi8(a[2 * i], a[2 * i + 1]);  // columns 8..15
    }
    for (int half = 0; half < 2; ++half) {
      const __m128i* c = b + 4 * half;
      const __m128i low[2] = {_mm_unpacklo_epi16(c[0], c[1]), _mm_unpackhi_epi16(c[0], c[1])};
      const __m128i high[2] = {_mm_unpacklo_epi16(c[2], c[3]), _mm_unpackhi_epi16(c[2], c[3])};
      auto* to = reinterpret_cast<__m128i*>(woven + 8 * half);
      for (int i = 0; i < 2; ++i) {
        _mm_storeu_si128(to + 2 * i, _mm_unpacklo_epi32(low[i], high[i]));
        _mm_storeu_si128(to + 2 * i + 1, _mm_unpackhi_epi32(low[i], high[i]));
      }
    }
#else
    for (int i = 0; i < kWoven; ++i) {
      woven[i] = 0;
      for (int g = 0; g < 8; ++g) woven[i] |= static_cast<uint64_t>(folds[g * stride + x + i]) << (8 * g);
    }
#endif
    const int64_t n = std::min(kWoven, width - x);
    for (int64_t i = 0; i < n; ++i) out[(x + i) * words] = woven[i];
  }
}

// Columns of `height` lines of `width` pixels; fold(y, rows, bytes) folds the lines y .. y + rows.
template <class Fold>
BitPlane turn(int64_t height, int64_t width, Fold fold) {
  BitPlane columns(width, height);
  const int64_t stride = (width + 63) / 64 * 64;
  std::vector<uint8_t> folds(static_cast<size_t>(stride * kFolds));
  for (int64_t top = 0; top < height; top += kFold * kFolds) {
    for (int64_t g = 0; g < kFolds; ++g) {
      const int64_t y = top + kFold * g;
      uint8_t* bytes = folds.data() + g * stride;
      if (y < height)
        fold(y, std::min(kFold, height - y), bytes);
      else
        std::fill_n(bytes, stride, uint8_t{0});
    }
    weave(folds.data(), stride, width, columns.bits.data() + top / 64, columns.words);
  }
  return columns;
}

}  // namespace

BitPlane packAcross(const MaskView& mask) {
  return turn(mask.height, mask.width, [&](int64_t y, int64_t rows, uint8_t* bytes) {
    const uint8_t* data = mask.data + y * mask.rowStride;
    if (rows == kFold)
      foldBytes(data, mask.rowStride, mask.width, bytes);
    else
      foldRest(data, mask.rowStride, rows, mask.width, bytes);
  });
}

BitPlane transpose(const BitPlane& plane) {
  std::vector<uint64_t> last;  // the last lines, made up to eight
  return turn(plane.lines, plane.length, [&](int64_t y, int64_t rows, uint8_t* bytes) {
    const uint64_t* lines = plane.line(y);
    if (rows != kFold) {
      last.assign(static_cast<size_t>(kFold * plane.words), 0);
      std::copy_n(lines, rows * plane.words, last.begin());
      lines = last.data();
    }
    foldBits(lines, plane.words, bytes);
  });
}

}  // namespace omni
