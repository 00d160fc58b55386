// The tracker's windows in AVX2: a row of a window is one vector. Elsewhere this file is empty functions that
// are never called.
#include "flow_patch.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OMNI_AVX2 __attribute__((target("avx2")))

namespace omni::patches {
namespace {

OMNI_AVX2 inline __m256i load(const int16_t* at) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

OMNI_AVX2 inline void store(int16_t* at, __m256i values) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(at), values);
}

OMNI_AVX2 inline __m256i widen(const uint8_t* at) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

OMNI_AVX2 inline void addProducts(__m256i& sum, __m256i a, __m256i b) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

OMNI_AVX2 inline int32_t total(__m256i sums) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 1)));
}

// Samples of a row of a window, from the rows of pixels on its two sides: next() goes down.
class Rows {
 public:
  OMNI_AVX2 Rows(const Corner& corner, int column)
      : pixel_(corner.pixel + column),
        stride_(corner.stride),
        left_(_mm256_set1_epi16(static_cast<int16_t>(kUnit - corner.a))),
        right_(_mm256_set1_epi16(static_cast<int16_t>(corner.a))),
        pair_(_mm256_set1_epi32((corner.b << 16) | (kUnit - corner.b))),
        above_(across()) {}

  OMNI_AVX2 __m256i next() {
    pixel_ += stride_;
    const __m256i below = across();
    const __m256i low = blend(_mm256_unpacklo_epi16(above_, below));
    const __m256i high = blend(_mm256_unpackhi_epi16(above_, below));
    above_ = below;
    return _mm256_packs_epi32(low, high);
  }

 private:
  OMNI_AVX2 __m256i across() const {
    return _mm256_add_epi16(_mm256_mullo_epi16(widen(pixel_), left_),
                            _mm256_mullo_epi16(widen(pixel_ + 1), right_));
  }

  OMNI_AVX2 __m256i blend(__m256i pairs) const {
    const __m256i sum = _mm256_madd_epi16(pairs, pair_);
    return _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(512)), 10);
  }

  const uint8_t* pixel_;
  ptrdiff_t stride_;
  __m256i left_, right_, pair_, above_;
};

// Half the difference, 0 where `mask` is.
OMNI_AVX2 inline __m256i gradient(__m256i after, __m256i before, __m256i mask) {
  return _mm256_and_si256(_mm256_srai_epi16(_mm256_sub_epi16(after, before), 1), mask);
}

// Samples 1 .. 16 of a row from its samples 0 .. 15 and 2 .. 17.
OMNI_AVX2 inline __m256i middle(__m256i first, __m256i last) {
  return _mm256_blend_epi16(_mm256_srli_si256(first, 2), _mm256_slli_si256(last, 2), 0x80);
}

}  // namespace

OMNI_AVX2
void makePatchAvx2(const Corner& ring, const uint8_t* inside, ptrdiff_t insideStride, Patch& patch) {
  Rows lefts(ring, 0), rights(ring, 2);
  __m256i left = lefts.next(), right = rights.next();
  __m256i above = middle(left, right);
  left = lefts.next();
  right = rights.next();
  __m256i here = middle(left, right);
  __m256i xx = _mm256_setzero_si256(), xy = xx, yy = xx, count = xx;
  for (int i = 0; i < kPixels; i += kWindow, inside += insideStride) {
    const __m256i weight = widen(inside);
    const __m256i mask = _mm256_sub_epi16(_mm256_setzero_si256(), weight);
    const __m256i gx = gradient(right, left, mask);
    left = lefts.next();
    right = rights.next();
    const __m256i below = middle(left, right);
    const __m256i gy = gradient(below, above, mask);
    store(patch.value + i, here);
    store(patch.weight + i, weight);
    store(patch.gx + i, gx);
    store(patch.gy + i, gy);
    addProducts(xx, gx, gx);
    addProducts(xy, gx, gy);
    addProducts(yy, gy, gy);
    addProducts(count, weight, weight);
    above = here;
    here = below;
  }
  patch.xx = total(xx);
  patch.xy = total(xy);
  patch.yy = total(yy);
  patch.count = total(count);
}

OMNI_AVX2
Mismatch mismatchAvx2(const Patch& patch, const Corner& corner) {
  Rows samples(corner, 0);
  __m256i x = _mm256_setzero_si256(), y = x;
  for (int i = 0; i < kPixels; i += kWindow) {
    const __m256i difference = _mm256_sub_epi16(load(patch.value + i), samples.next());
    addProducts(x, load(patch.gx + i), difference);
    addProducts(y, load(patch.gy + i), difference);
  }
  return {total(x), total(y)};
}

OMNI_AVX2
Fit fitAvx2(const Patch& patch, const Corner& corner) {
  __m256i sum = _mm256_setzero_si256(), difference = sum, deviation = sum;
  for (int i = 0; i < kPixels; i += kWindow) addProducts(sum, load(patch.value + i), load(patch.weight + i));
  const __m256i mean = _mm256_set1_epi16(static_cast<int16_t>(total(sum) / patch.count));
  Rows samples(corner, 0);
  for (int i = 0; i < kPixels; i += kWindow) {
    const __m256i value = load(patch.value + i), weight = load(patch.weight + i);
    addProducts(difference, _mm256_abs_epi16(_mm256_sub_epi16(value, samples.next())), weight);
    addProducts(deviation, _mm256_abs_epi16(_mm256_sub_epi16(value, mean)), weight);
  }
  return {total(difference), total(deviation)};
}

}  // namespace omni::patches

#else

namespace omni::patches {

void makePatchAvx2(const Corner&, const uint8_t*, ptrdiff_t, Patch&) {}
Mismatch mismatchAvx2(const Patch&, const Corner&) { return {}; }
Fit fitAvx2(const Patch&, const Corner&) { return {}; }

}  // namespace omni::patches

#endif
