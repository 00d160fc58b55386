// The upsampling's inner loops in AVX2 and FMA, chosen when the processor has them. Elsewhere this file is
// empty functions that are never called.
#include <cstdlib>

#include "mask_upsample_rows.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OMNI_AVX2 __attribute__((target("avx2,fma")))

namespace omni::upsample {

bool hasAvx2() {
  // The variable lets the tests run the portable version on any machine.
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          std::getenv("OMNI_SDK_NO_AVX2") == nullptr;
  return has;
}

OMNI_AVX2
void findRangeAvx2(const float* row, const Across& across, int32_t* least, int32_t* most) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (size_t k = 0; k < across.begins.size(); ++k) {
    __m256i low = magnitude, high = _mm256_set1_epi32(-0x7fffffff - 1);
    for (int32_t at = across.begins[k]; at < across.ends[k]; at += kLanes) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + at));
      const __m256i key = _mm256_xor_si256(bits, _mm256_and_si256(_mm256_srai_epi32(bits, 31), magnitude));
      low = _mm256_min_epi32(low, key);
      high = _mm256_max_epi32(high, key);
    }
    // The greatest is the complement of the complements' least: both are reduced together.
    high = _mm256_xor_si256(high, _mm256_set1_epi32(-1));
    const __m128i a = _mm_min_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    const __m128i b = _mm_min_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    const __m128i pairs = _mm_min_epi32(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b));
    const __m128i both = _mm_min_epi32(pairs, _mm_shuffle_epi32(pairs, _MM_SHUFFLE(2, 3, 0, 1)));
    least[k] = _mm_cvtsi128_si32(both);
    most[k] = ~_mm_extract_epi32(both, 2);
  }
}

OMNI_AVX2
void interpolateAcrossAvx2(const float* row, const Across& across, int64_t block, float* out) {
  const int32_t* lo = across.lo.data() + block * kBlock;
  const int32_t* steps = across.steps.data() + block * kBlock;
  const float* w0 = across.w0.data() + block * kBlock;
  const float* w1 = across.w1.data() + block * kBlock;
  for (int i = 0; i < kBlock; i += kLanes) {
    // All neighbours lie in kLanes + 1 pixels: two loads and a permutation in place of gathers.
    const float* first = row + lo[i];
    const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(steps + i));
    const __m256 left = _mm256_permutevar8x32_ps(_mm256_loadu_ps(first), index);
    const __m256 right = _mm256_permutevar8x32_ps(_mm256_loadu_ps(first + 1), index);
    const __m256 weighted = _mm256_mul_ps(right, _mm256_loadu_ps(w1 + i));
    _mm256_storeu_ps(out + i, _mm256_fmadd_ps(left, _mm256_loadu_ps(w0 + i), weighted));
  }
}

OMNI_AVX2
uint64_t thresholdBetweenAvx2(const float* top, const float* bottom, float w0, float w1, float threshold) {
  const __m256 upper = _mm256_set1_ps(w0), lower = _mm256_set1_ps(w1);
  const __m256 limit = _mm256_set1_ps(threshold);
  uint64_t word = 0;
  for (int i = 0; i < kBlock; i += kLanes) {
    const __m256 value = _mm256_fmadd_ps(_mm256_loadu_ps(top + i), upper,
                                         _mm256_mul_ps(_mm256_loadu_ps(bottom + i), lower));
    const int above = _mm256_movemask_ps(_mm256_cmp_ps(value, limit, _CMP_GT_OQ));
    word |= static_cast<uint64_t>(static_cast<unsigned>(above)) << i;
  }
  return word;
}

}  // namespace omni::upsample

#else

namespace omni::upsample {

bool hasAvx2() { return false; }
void interpolateAcrossAvx2(const float*, const Across&, int64_t, float*) {}
uint64_t thresholdBetweenAvx2(const float*, const float*, float, float, float) { return 0; }

}  // namespace omni::upsample

#endif
