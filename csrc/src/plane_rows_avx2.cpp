// The passes over planes in AVX2; elsewhere empty functions that are never called.
#include "plane_rows.h"

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OMNI_AVX2 __attribute__((target("avx2")))

namespace omni::plane_rows {
namespace {

// Two int16 weights as the pair that one multiply-add instruction takes.
OMNI_AVX2 inline __m256i pair_of(const std::int16_t* weights) {
  int pair;
  std::memcpy(&pair, weights, sizeof pair);
  return _mm256_set1_epi32(pair);
}

OMNI_AVX2 inline __m256i load(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }

// Eight int16 at `low` in the lower half, at `high` in the upper.
OMNI_AVX2 inline __m256i load_halves(const std::int16_t* low, const std::int16_t* high) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

OMNI_AVX2 inline void add_product(__m256i& sum, __m256i values, __m256i weights) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, weights));
}

}  // namespace

// 64 samples at a time: whole cache lines of each row, however far apart the rows are.
OMNI_AVX2
std::int64_t sum_rows_8_avx2(const std::uint8_t* const* rows, std::int32_t count, const std::int16_t* weights,
                             std::int64_t size, int shift, std::int16_t* out) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i half = _mm256_set1_epi32((1 << shift) >> 1);
  const __m128i bits = _mm_cvtsi32_si128(shift);
  std::int64_t at = 0;
  for (; at + 64 <= size; at += 64) {
    __m256i sums[8] = {half, half, half, half, half, half, half, half};
    for (std::int32_t j = 0; j < count; j += 2) {
      const std::uint8_t* row = rows[j] + at;
      const std::uint8_t* next = rows[j + 1 < count ? j + 1 : j] + at;  // its weight is 0 at the end
      const __m256i weight = pair_of(weights + j);
      for (int k = 0; k < 2; ++k) {
        const __m256i a = load(row + 32 * k), b = load(next + 32 * k);
        const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
        add_product(sums[4 * k], _mm256_unpacklo_epi8(low, zero), weight);
        add_product(sums[4 * k + 1], _mm256_unpackhi_epi8(low, zero), weight);
        add_product(sums[4 * k + 2], _mm256_unpacklo_epi8(high, zero), weight);
        add_product(sums[4 * k + 3], _mm256_unpackhi_epi8(high, zero), weight);
      }
    }
    for (int k = 0; k < 2; ++k) {
      const __m256i* s = sums + 4 * k;
      const __m256i low = _mm256_packs_epi32(_mm256_sra_epi32(s[0], bits), _mm256_sra_epi32(s[1], bits));
      const __m256i high = _mm256_packs_epi32(_mm256_sra_epi32(s[2], bits), _mm256_sra_epi32(s[3], bits));
      auto* target = reinterpret_cast<__m256i*>(out + at + 32 * k);
      _mm256_storeu_si256(target, _mm256_permute2x128_si256(low, high, 0x20));
      _mm256_storeu_si256(target + 1, _mm256_permute2x128_si256(low, high, 0x31));
    }
  }
  return at;
}

// Weights with 7 bits: two rows' bytes times two weights are summed in 16 bits, as are all rows, from -64 on,
// which keeps every sum of `fits_16_bits` in range.
OMNI_AVX2
std::int64_t sum_rows_coarse_avx2(const std::uint8_t* const* rows, std::int32_t count,
                                  const std::int16_t* weights, std::int64_t size, std::int16_t* out) {
  const __m256i start = _mm256_set1_epi16(-(128 << 7) + 1), end = _mm256_set1_epi16(64 << 7);
  std::int64_t at = 0;
  for (; at + 64 <= size; at += 64) {
    __m256i sums[4] = {start, start, start, start};
    for (std::int32_t j = 0; j < count; j += 2) {
      const std::uint8_t* row = rows[j] + at;
      const std::uint8_t* next = rows[j + 1 < count ? j + 1 : j] + at;
      const __m256i weight = _mm256_set1_epi16(
          static_cast<std::int16_t>((weights[j] & 255) | weights[j + 1] * 256));
      for (int k = 0; k < 2; ++k) {
        const __m256i a = load(row + 32 * k), b = load(next + 32 * k);
        const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
        sums[2 * k] = _mm256_add_epi16(sums[2 * k], _mm256_maddubs_epi16(low, weight));
        sums[2 * k + 1] = _mm256_add_epi16(sums[2 * k + 1], _mm256_maddubs_epi16(high, weight));
      }
    }
    for (int k = 0; k < 2; ++k) {
      const __m256i low = _mm256_add_epi16(_mm256_srai_epi16(sums[2 * k], 1), end);
      const __m256i high = _mm256_add_epi16(_mm256_srai_epi16(sums[2 * k + 1], 1), end);
      auto* target = reinterpret_cast<__m256i*>(out + at + 32 * k);
      _mm256_storeu_si256(target, _mm256_permute2x128_si256(low, high, 0x20));
      _mm256_storeu_si256(target + 1, _mm256_permute2x128_si256(low, high, 0x31));
    }
  }
  return at;
}

OMNI_AVX2
std::int64_t sum_rows_16_avx2(const std::uint8_t* const* rows, std::int32_t count,
                              const std::int16_t* weights, std::int64_t size, int shift, int padding_bits,
                              std::int16_t* out) {
  const __m256i half = _mm256_set1_epi32((1 << shift) >> 1);
  const __m128i bits = _mm_cvtsi32_si128(shift), padding = _mm_cvtsi32_si128(padding_bits);
  std::int64_t at = 0;
  for (; at + 32 <= size; at += 32) {
    __m256i sums[4] = {half, half, half, half};
    for (std::int32_t j = 0; j < count; j += 2) {
      const std::uint8_t* row = rows[j] + 2 * at;
      const std::uint8_t* next = rows[j + 1 < count ? j + 1 : j] + 2 * at;
      const __m256i weight = pair_of(weights + j);
      for (int k = 0; k < 2; ++k) {
        const __m256i a = _mm256_srl_epi16(load(row + 32 * k), padding);
        const __m256i b = _mm256_srl_epi16(load(next + 32 * k), padding);
        add_product(sums[2 * k], _mm256_unpacklo_epi16(a, b), weight);
        add_product(sums[2 * k + 1], _mm256_unpackhi_epi16(a, b), weight);
      }
    }
    for (int k = 0; k < 2; ++k) {  // unpacking and packing both work within halves: the order is kept
      const __m256i packed = _mm256_packs_epi32(_mm256_sra_epi32(sums[2 * k], bits),
                                                _mm256_sra_epi32(sums[2 * k + 1], bits));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at + 16 * k), packed);
    }
  }
  return at;
}

// Eight outputs at a time, k in the lower and 4 + k in the upper half of register k.
OMNI_AVX2
void sum_columns_avx2(const std::int16_t* row, const PlaneTaps& taps, const std::int16_t* packed,
                      std::int32_t* out) {
  const auto outputs = static_cast<std::int64_t>(taps.starts.size());
  for (std::int64_t x = 0; x < outputs; x += group) {
    const std::int64_t* starts = taps.starts.data() + x;
    __m256i sums[4];
    for (int k = 0; k < 4; ++k) sums[k] = _mm256_setzero_si256();
    for (std::int64_t j = 0; j < taps.stride; j += 8) {
      for (int k = 0; k < 4; ++k, packed += 16) {
        add_product(sums[k], load_halves(row + starts[k] + j, row + starts[k + 4] + j), load(packed));
      }
    }
    const __m256i even = _mm256_hadd_epi32(sums[0], sums[1]), odd = _mm256_hadd_epi32(sums[2], sums[3]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + x), _mm256_hadd_epi32(even, odd));
  }
}

__attribute__((target("avx2,f16c"))) void to_half_avx2(const float* values, std::int64_t count,
                                                       std::uint16_t* out) {
  for (std::int64_t x = 0; x < count; x += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(values + x), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x), halves);
  }
}

}  // namespace omni::plane_rows

#else

namespace omni::plane_rows {

std::int64_t sum_rows_8_avx2(const std::uint8_t* const*, std::int32_t, const std::int16_t*, std::int64_t, int,
                             std::int16_t*) {
  return 0;
}
std::int64_t sum_rows_16_avx2(const std::uint8_t* const*, std::int32_t, const std::int16_t*, std::int64_t,
                              int, int, std::int16_t*) {
  return 0;
}
std::int64_t sum_rows_coarse_avx2(const std::uint8_t* const*, std::int32_t, const std::int16_t*, std::int64_t,
                                  std::int16_t*) {
  return 0;
}
void sum_columns_avx2(const std::int16_t*, const PlaneTaps&, const std::int16_t*, std::int32_t*) {}
void to_half_avx2(const float*, std::int64_t, std::uint16_t*) {}

}  // namespace omni::plane_rows

#endif
