// The inner passes over planes, each in a portable and an AVX2 version that give the same bytes.
#pragma once

#include <cstdint>

#include "omni/plane_pixels.h"

namespace omni::plane_rows {

constexpr std::int64_t group = 8;  // outputs that the pass over columns makes at once

// One row of `size` samples as the weighted sum of `count` rows, in int16 with 6 fractional bits, clamped.
// `weights`, with `weight_bits` fractional bits, hold a zero beyond an odd count.
void sum_rows(const std::uint8_t* const* rows, std::int32_t count, const std::int16_t* weights,
              int weight_bits, std::int64_t size, const PlaneFormat& format, std::int16_t* out);

// Whether weights with 7 bits fit the 16-bit sums of the pass over bytes.
bool fits_16_bits(const PlaneTaps& taps);
constexpr int coarse_bits = 7;

// The weighted sums along a row, 20 fractional bits. `row` goes on for taps.stride zeros, `out` has room for
// a multiple of `group`.
void sum_columns(const std::int16_t* row, const PlaneTaps& taps, const std::int16_t* packed,
                 std::int32_t* out);

// The taps as the AVX2 pass reads them: for eight outputs and every eight taps, those of outputs 0, 4, 1, 5 ..
std::vector<std::int16_t> pack_taps(const PlaneTaps& taps);

// Handle whole runs; return how many samples they have done.
std::int64_t sum_rows_8_avx2(const std::uint8_t* const* rows, std::int32_t count, const std::int16_t* weights,
                             std::int64_t size, int shift, std::int16_t* out);
std::int64_t sum_rows_coarse_avx2(const std::uint8_t* const* rows, std::int32_t count,
                                  const std::int16_t* weights, std::int64_t size, std::int16_t* out);
std::int64_t sum_rows_16_avx2(const std::uint8_t* const* rows, std::int32_t count,
                              const std::int16_t* weights, std::int64_t size, int shift, int padding_bits,
                              std::int16_t* out);
void sum_columns_avx2(const std::int16_t* row, const PlaneTaps& taps, const std::int16_t* packed,
                      std::int32_t* out);
// `count` a multiple of 8.
void to_half_avx2(const float* values, std::int64_t count, std::uint16_t* out);

}  // namespace omni::plane_rows
