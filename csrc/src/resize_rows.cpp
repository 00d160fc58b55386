#include "resize_rows.h"

#include <algorithm>

namespace omni::rows {
namespace {

inline std::uint8_t clamp_to_byte(std::int32_t value) {
  return static_cast<std::uint8_t>(std::min(std::max(value, 0), 255));
}

// The block is transposed first, so that one tap is one contiguous run over the rows: loops that compilers
// turn into the target's vector instructions (NEON on aarch64).
void horizontal_portable(const std::uint8_t* const* sources, std::uint8_t* const* targets,
                         std::int64_t from_width, const AxisWeights& weights, std::int16_t* columns) {
  for (std::int64_t row = 0; row < block; ++row) {
    for (std::int64_t x = 0; x < from_width * channels; ++x) {
      columns[x * block + row] = sources[row][x];
    }
  }
  const std::int32_t half = (1 << weights.precision) >> 1;
  const auto to_width = static_cast<std::int64_t>(weights.starts.size());
  for (std::int64_t x = 0; x < to_width; ++x) {
    const std::int16_t* taps = weights.values.data() + x * weights.stride;
    const std::int32_t count = weights.counts[static_cast<std::size_t>(x)];
    const std::int64_t start = weights.starts[static_cast<std::size_t>(x)];
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      std::int32_t sums[block];
      std::fill(sums, sums + block, half);
      const std::int16_t* column = columns + (start * channels + channel) * block;
      for (std::int32_t j = 0; j < count; ++j, column += channels * block) {
        const std::int32_t weight = taps[j];
        for (std::int64_t row = 0; row < block; ++row) {
          sums[row] += weight * static_cast<std::int32_t>(column[row]);
        }
      }
      for (std::int64_t row = 0; row < block; ++row) {
        targets[row][x * channels + channel] = clamp_to_byte(sums[row] >> weights.precision);
      }
    }
  }
}

// Sums stay in a run short enough for the first-level cache.
void vertical_portable(const std::uint8_t* const* sources, std::uint8_t* target, std::int64_t from,
                       std::int64_t size, const std::int16_t* taps, std::int32_t count, unsigned precision) {
  constexpr std::int64_t run = 256;
  std::int32_t sums[run];
  for (std::int64_t at = from; at < size; at += run) {
    const std::int64_t length = std::min(run, size - at);
    std::fill(sums, sums + length, (1 << precision) >> 1);
    for (std::int32_t j = 0; j < count; ++j) {
      const std::uint8_t* line = sources[j] + at;
      const std::int32_t weight = taps[j];
      for (std::int64_t x = 0; x < length; ++x) {
        sums[x] += weight * static_cast<std::int32_t>(line[x]);
      }
    }
    for (std::int64_t x = 0; x < length; ++x) {
      target[at + x] = clamp_to_byte(sums[x] >> precision);
    }
  }
}

}  // namespace

void horizontal(const std::uint8_t* const* sources, std::uint8_t* const* targets, std::int64_t from_width,
                const AxisWeights& weights, std::int16_t* columns) {
  if (has_avx2()) {
    horizontal_avx2(sources, targets, weights);
  } else {
    horizontal_portable(sources, targets, from_width, weights, columns);
  }
}

void vertical(const std::uint8_t* const* sources, std::uint8_t* target, std::int64_t size,
              const std::int16_t* taps, std::int32_t count, unsigned precision) {
  std::int64_t done = 0;
  if (has_avx2()) done = vertical_avx2(sources, target, size, taps, count, precision);
  vertical_portable(sources, target, done, size, taps, count, precision);
}

}  // namespace omni::rows
