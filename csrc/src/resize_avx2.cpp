// The resize's passes in AVX2, chosen when the processor has it. Elsewhere this file is empty functions
// that are never called.
#include <cstdlib>
#include <cstring>

#include "resize_rows.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OMNI_AVX2 __attribute__((target("avx2")))

namespace omni::rows {
namespace {

// Two int16 weights as the pair that one multiply-add instruction takes.
inline int pair_of(const std::int16_t* taps) {
  int pair;
  std::memcpy(&pair, taps, sizeof pair);
  return pair;
}

// 16 bytes of one row in the lower half, of another in the upper.
OMNI_AVX2 inline __m256i two_rows(const std::uint8_t* low, const std::uint8_t* high) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

}  // namespace

bool has_avx2() {
  // The variable lets the tests run the portable version on any machine.
  static const bool has = __builtin_cpu_supports("avx2") && std::getenv("OMNI_SDK_NO_AVX2") == nullptr;
  return has;
}

OMNI_AVX2
void horizontal_avx2(const std::uint8_t* const* sources, std::uint8_t* const* targets,
                     const AxisWeights& weights) {
  // Bytes r0 g0 b0 r1 g1 b1 .. -> int16 pairs (r0 r1) (g0 g1) (b0 b1) of pixels 0 and 1, and of 2 and 3.
  const __m256i first = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i second = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  const __m256i half = _mm256_set1_epi32((1 << weights.precision) >> 1);
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(weights.precision));
  const std::size_t to_width = weights.starts.size();
  for (std::size_t x = 0; x < to_width; ++x) {
    const std::int16_t* taps = weights.values.data() + x * static_cast<std::size_t>(weights.stride);
    const std::int16_t* end = taps + weights.counts[x];
    std::int64_t at = std::int64_t{weights.starts[x]} * channels;
    __m256i sum0 = half, sum1 = half, sum2 = half, sum3 = half;
    for (; taps < end; taps += 4, at += 4 * channels) {
      const __m256i near = _mm256_set1_epi32(pair_of(taps));
      const __m256i far = _mm256_set1_epi32(pair_of(taps + 2));
      const __m256i rows0 = two_rows(sources[0] + at, sources[1] + at);
      const __m256i rows1 = two_rows(sources[2] + at, sources[3] + at);
      const __m256i rows2 = two_rows(sources[4] + at, sources[5] + at);
      const __m256i rows3 = two_rows(sources[6] + at, sources[7] + at);
      sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_shuffle_epi8(rows0, first), near));
      sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_shuffle_epi8(rows1, first), near));
      sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_shuffle_epi8(rows2, first), near));
      sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_shuffle_epi8(rows3, first), near));
      sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_shuffle_epi8(rows0, second), far));
      sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_shuffle_epi8(rows1, second), far));
      sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_shuffle_epi8(rows2, second), far));
      sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_shuffle_epi8(rows3, second), far));
    }
    // The two saturating packs are the clamp to a byte.
    const __m256i low = _mm256_packs_epi32(_mm256_sra_epi32(sum0, shift), _mm256_sra_epi32(sum1, shift));
    const __m256i high = _mm256_packs_epi32(_mm256_sra_epi32(sum2, shift), _mm256_sra_epi32(sum3, shift));
    alignas(32) std::uint32_t pixels[8];  // of rows 0 2 4 6 1 3 5 7
    _mm256_store_si256(reinterpret_cast<__m256i*>(pixels), _mm256_packus_epi16(low, high));
    for (std::size_t row = 0; row < 8; ++row) {  // the fourth byte is overwritten by the next pixel
      std::memcpy(targets[row] + x * channels, pixels + (row & 1) * 4 + row / 2, 4);
    }
  }
}

OMNI_AVX2
std::int64_t vertical_avx2(const std::uint8_t* const* sources, std::uint8_t* target, std::int64_t size,
                           const std::int16_t* taps, std::int32_t count, unsigned precision) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i half = _mm256_set1_epi32((1 << precision) >> 1);
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(precision));
  std::int64_t at = 0;
  for (; at + 32 <= size; at += 32) {
    __m256i sum0 = half, sum1 = half, sum2 = half, sum3 = half;
    for (std::int32_t j = 0; j < count; j += 2) {
      const std::uint8_t* other = sources[j + 1 < count ? j + 1 : j];  // its weight is 0 at the end
      const __m256i weight = _mm256_set1_epi32(pair_of(taps + j));
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sources[j] + at));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(other + at));
      const __m256i low = _mm256_unpacklo_epi8(a, b);
      const __m256i high = _mm256_unpackhi_epi8(a, b);
      sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), weight));
      sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), weight));
      sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), weight));
      sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), weight));
    }
    const __m256i low = _mm256_packs_epi32(_mm256_sra_epi32(sum0, shift), _mm256_sra_epi32(sum1, shift));
    const __m256i high = _mm256_packs_epi32(_mm256_sra_epi32(sum2, shift), _mm256_sra_epi32(sum3, shift));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + at), _mm256_packus_epi16(low, high));
  }
  return at;
}

}  // namespace omni::rows

#else

namespace omni::rows {

bool has_avx2() { return false; }
void horizontal_avx2(const std::uint8_t* const*, std::uint8_t* const*, const AxisWeights&) {}
std::int64_t vertical_avx2(const std::uint8_t* const*, std::uint8_t*, std::int64_t, const std::int16_t*,
                           std::int32_t, unsigned) {
  return 0;
}

}  // namespace omni::rows

#endif
