// The inner passes over planes, each in a portable and an AVX2 version that give the same bytes.
#pragma once

#include <cstdint>

#include "omni/plane_pixels.h"

namespace omni::plane_rows {

constexpr int weight_bits = 14;
constexpr std::int64_t group = 8;  // outputs that the pass over columns makes at once

// One row of `size` samples as the weighted sum of `count` rows, in int16 with 6 fractional bits, clamped.
// `weights` holds a zero beyond an odd count.
void sum_rows(const std::uint8_t* const* rows, std::int32_t count, const std::int16_t* weights,
              std::int64_t size, const PlaneFormat& format, std::int16_t* out);

// The weighted sums along a row, 20 fractional bits. `row` goes on for taps.stride zeros, `out` has room for
// a multiple of `group`.
void sum_columns(const std::int16_t* row, const PlaneTaps& taps, std::int32_t* out);

// Handle whole runs; return how many samples they have done.
std::int64_t sum_rows_8_avx2(const std::uint8_t* const* rows, std::int32_t count,
                             const std::int16_t* weights, std::int64_t size, int shift, std::int16_t* out);
std::int64_t sum_rows_16_avx2(const std::uint8_t* const* rows, std::int32_t count,
                              const std::int16_t* weights, std::int64_t size, int shift, int padding_bits,
                              std::int16_t* out);
void sum_columns_avx2(const std::int16_t* row, const PlaneTaps& taps, std::int32_t* out);

}  // namespace omni::plane_rows
