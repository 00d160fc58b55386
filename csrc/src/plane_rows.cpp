#include "plane_rows.h"

#include <algorithm>
#include <cstring>

#include "resize_rows.h"

namespace omni::plane_rows {
namespace {

inline std::int32_t sample(const std::uint8_t* row, std::int64_t x, int) { return row[x]; }

// Words of memory need not be aligned.
inline std::int32_t word(const std::uint8_t* row, std::int64_t x, int padding_bits) {
  std::uint16_t value;
  std::memcpy(&value, row + 2 * x, sizeof value);
  return value >> padding_bits;
}

// Sums stay in a run short enough for the first-level cache.
template <std::int32_t (*read)(const std::uint8_t*, std::int64_t, int)>
void sum_rows_portable(const std::uint8_t* const* rows, std::int32_t count, const std::int16_t* weights,
                       std::int64_t from, std::int64_t size, int shift, int padding_bits, std::int16_t* out) {
  constexpr std::int64_t run = 256;
  std::int32_t sums[run];
  for (std::int64_t at = from; at < size; at += run) {
    const std::int64_t length = std::min(run, size - at);
    std::fill(sums, sums + length, (1 << shift) >> 1);
    for (std::int32_t j = 0; j < count; ++j) {
      const std::int32_t weight = weights[j];
      for (std::int64_t x = 0; x < length; ++x) sums[x] += weight * read(rows[j], at + x, padding_bits);
    }
    for (std::int64_t x = 0; x < length; ++x) {
      out[at + x] = static_cast<std::int16_t>(std::clamp(sums[x] >> shift, -32768, 32767));
    }
  }
}

void sum_columns_portable(const std::int16_t* row, const PlaneTaps& taps, std::int32_t* out) {
  for (std::size_t x = 0; x < taps.starts.size(); ++x) {
    const std::int16_t* values = row + taps.starts[x];
    const std::int16_t* weights = taps.values.data() + static_cast<std::int64_t>(x) * taps.stride;
    std::int32_t sum = 0;
    for (std::int64_t j = 0; j < taps.stride; ++j) {
      sum += static_cast<std::int32_t>(values[j]) * static_cast<std::int32_t>(weights[j]);
    }
    out[x] = sum;
  }
}

}  // namespace

bool fits_16_bits(const PlaneTaps& taps) {
  for (std::size_t i = 0; i < taps.starts.size(); ++i) {
    const std::int16_t* row = taps.values.data() + static_cast<std::int64_t>(i) * taps.stride;
    std::int32_t positive = 0, negative = 0, pair = 0;
    for (std::int64_t j = 0; j < taps.stride; ++j) {
      (row[j] > 0 ? positive : negative) += row[j];
      if (j) pair = std::max(pair, row[j - 1] + row[j]);
    }
    if (pair > 128 || positive * 255 - 16384 > 32767 || negative * 255 - 16384 < -32768) return false;
  }
  return true;
}

void sum_rows(const std::uint8_t* const* rows, std::int32_t count, const std::int16_t* weights,
              int weight_bits, std::int64_t size, const PlaneFormat& format, std::int16_t* out) {
  const int shift = weight_bits + format.bits - 14;  // from the bits of the product to 6 fractional ones
  std::int64_t done = 0;
  if (format.bits == 8) {
    if (omni::rows::has_avx2()) {
      done = weight_bits == coarse_bits ? sum_rows_coarse_avx2(rows, count, weights, size, out)
                                        : sum_rows_8_avx2(rows, count, weights, size, shift, out);
    }
    sum_rows_portable<sample>(rows, count, weights, done, size, shift, 0, out);
  } else {
    if (omni::rows::has_avx2()) {
      done = sum_rows_16_avx2(rows, count, weights, size, shift, format.padding_bits, out);
    }
    sum_rows_portable<word>(rows, count, weights, done, size, shift, format.padding_bits, out);
  }
}

std::vector<std::int16_t> pack_taps(const PlaneTaps& taps) {
  std::vector<std::int16_t> packed;
  packed.reserve(taps.values.size());
  const auto outputs = static_cast<std::int64_t>(taps.starts.size());
  for (std::int64_t x = 0; x < outputs; x += group) {
    for (std::int64_t j = 0; j < taps.stride; j += 8) {
      for (std::int64_t k = 0; k < group; ++k) {
        const std::int16_t* eight = taps.values.data() + (x + k / 2 + k % 2 * 4) * taps.stride + j;
        packed.insert(packed.end(), eight, eight + 8);
      }
    }
  }
  return packed;
}

void sum_columns(const std::int16_t* row, const PlaneTaps& taps, const std::int16_t* packed,
                 std::int32_t* out) {
  if (omni::rows::has_avx2()) {
    sum_columns_avx2(row, taps, packed, out);
  } else {
    sum_columns_portable(row, taps, out);
  }
}

}  // namespace omni::plane_rows
