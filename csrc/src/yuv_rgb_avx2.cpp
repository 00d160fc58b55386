// yuv_row_to_rgb for whole runs of 16 pixels in AVX2; elsewhere an empty function.
#include "resize_rows.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OMNI_AVX2 __attribute__((target("avx2")))

namespace omni::rows {
namespace {

// 16 bytes -> 16 values times 8, less an offset.
OMNI_AVX2 inline __m256i widen(__m128i bytes, __m256i offset) {
  return _mm256_sub_epi16(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 3), offset);
}

// 8 chroma samples, each for two pixels.
OMNI_AVX2 inline __m128i twice(const std::uint8_t* samples) {
  const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(samples));
  return _mm_unpacklo_epi8(eight, eight);
}

OMNI_AVX2 inline __m128i to_bytes(__m256i values) {
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi16(values, values), 0x08));
}

// 16 bytes of the packed pixels, from the bytes of each colour that belong there (-1: none).
OMNI_AVX2 inline void store_mixed(std::uint8_t* target, __m128i r, __m128i g, __m128i b, __m128i from_r,
                                  __m128i from_g, __m128i from_b) {
  const __m128i mixed = _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, from_r), _mm_shuffle_epi8(g, from_g)),
                                     _mm_shuffle_epi8(b, from_b));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), mixed);
}

}  // namespace

OMNI_AVX2
std::int64_t yuv_avx2(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v, std::uint8_t* rgb,
                      std::int64_t width, const YuvCoefficients& k) {
  const __m256i y_offset = _mm256_set1_epi16(k.y_offset), middle = _mm256_set1_epi16(1024);
  const __m256i y_weight = _mm256_set1_epi16(k.y), v_red = _mm256_set1_epi16(k.v_to_red);
  const __m256i u_green = _mm256_set1_epi16(k.u_to_green), v_green = _mm256_set1_epi16(k.v_to_green);
  const __m256i u_blue = _mm256_set1_epi16(k.u_to_blue);
  const __m128i r0 = _mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5);
  const __m128i g0 = _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1);
  const __m128i b0 = _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1);
  const __m128i r1 = _mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1);
  const __m128i g1 = _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10);
  const __m128i b1 = _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1);
  const __m128i r2 = _mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1);
  const __m128i g2 = _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1);
  const __m128i b2 = _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15);
  std::int64_t at = 0;
  for (; at + 16 <= width; at += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(y + at));
    const __m256i luma = _mm256_mulhi_epi16(widen(bytes, y_offset), y_weight);
    const __m256i du = widen(twice(u + at / 2), middle), dv = widen(twice(v + at / 2), middle);
    const __m128i r = to_bytes(_mm256_add_epi16(luma, _mm256_mulhi_epi16(dv, v_red)));
    const __m256i green = _mm256_add_epi16(_mm256_mulhi_epi16(du, u_green), _mm256_mulhi_epi16(dv, v_green));
    const __m128i g = to_bytes(_mm256_add_epi16(luma, green));
    const __m128i b = to_bytes(_mm256_add_epi16(luma, _mm256_mulhi_epi16(du, u_blue)));
    store_mixed(rgb + at * 3, r, g, b, r0, g0, b0);
    store_mixed(rgb + at * 3 + 16, r, g, b, r1, g1, b1);
    store_mixed(rgb + at * 3 + 32, r, g, b, r2, g2, b2);
  }
  return at;
}

}  // namespace omni::rows

#else

namespace omni::rows {

std::int64_t yuv_avx2(const std::uint8_t*, const std::uint8_t*, const std::uint8_t*, std::uint8_t*,
                      std::int64_t, const YuvCoefficients&) {
  return 0;
}

}  // namespace omni::rows

#endif
