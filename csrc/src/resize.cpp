#include "omni/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

// The inner loops are written so that the compiler vectorises them; on x86-64 with glibc it also makes an
// AVX2 version, chosen when the module is loaded. Integer arithmetic: every version gives the same bytes.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define OMNI_MULTIVERSION __attribute__((target_clones("avx2", "default")))
#else
#define OMNI_MULTIVERSION
#endif

namespace omni {
namespace {

constexpr std::int64_t channels = 3;
constexpr std::int64_t block_rows = 16;  // rows that the horizontal pass handles at once

double filter_value(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::bilinear) {
    return x < 1.0 ? 1.0 - x : 0.0;
  }
  constexpr double a = -0.5;  // antialiased bicubic, as PIL; without antialias torch has -0.75
  if (x < 1.0) {
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  }
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

inline std::uint8_t clamp_to_byte(std::int32_t value) {
  return static_cast<std::uint8_t>(std::min(std::max(value, 0), 255));
}

// Rows [0, rows) of an image -> rows of the target width; rows <= block_rows.
// `columns` is scratch of width * channels * block_rows: the block transposed, so that one tap is one
// contiguous run over the rows.
OMNI_MULTIVERSION
void horizontal_block(const std::uint8_t* source, std::uint8_t* target, std::int64_t rows,
                      std::int64_t from_width, std::int64_t to_width, const AxisWeights& weights,
                      std::int16_t* columns) {
  const std::int64_t from_stride = from_width * channels;
  const std::int64_t to_stride = to_width * channels;
  for (std::int64_t row = 0; row < block_rows; ++row) {
    const std::uint8_t* line = source + std::min(row, rows - 1) * from_stride;
    for (std::int64_t x = 0; x < from_stride; ++x) {
      columns[x * block_rows + row] = line[x];
    }
  }
  const std::int32_t half = 1 << (weights.precision - 1);
  for (std::int64_t x = 0; x < to_width; ++x) {
    const std::int16_t* taps = weights.values.data() + x * weights.taps;
    const std::int32_t count = weights.counts[x];
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      std::int32_t sums[block_rows];
      for (std::int64_t row = 0; row < block_rows; ++row) {
        sums[row] = half;
      }
      const std::int16_t* column = columns + (weights.starts[x] * channels + channel) * block_rows;
      for (std::int32_t j = 0; j < count; ++j, column += channels * block_rows) {
        const std::int32_t weight = taps[j];
        for (std::int64_t row = 0; row < block_rows; ++row) {
          sums[row] += weight * static_cast<std::int32_t>(column[row]);
        }
      }
      std::uint8_t* out = target + x * channels + channel;
      for (std::int64_t row = 0; row < rows; ++row) {
        out[row * to_stride] = clamp_to_byte(sums[row] >> weights.precision);
      }
    }
  }
}

// One output row as the weighted sum of `count` input rows of `stride` bytes.
OMNI_MULTIVERSION
void vertical_row(const std::uint8_t* source, std::uint8_t* target, std::int64_t stride,
                  const std::int16_t* taps, std::int32_t count, unsigned precision,
                  std::int32_t* sums) {
  std::fill(sums, sums + stride, 1 << (precision - 1));
  for (std::int32_t j = 0; j < count; ++j) {
    const std::uint8_t* line = source + j * stride;
    const std::int32_t weight = taps[j];
    for (std::int64_t x = 0; x < stride; ++x) {
      sums[x] += weight * static_cast<std::int32_t>(line[x]);
    }
  }
  for (std::int64_t x = 0; x < stride; ++x) {
    target[x] = clamp_to_byte(sums[x] >> precision);
  }
}

void check_side(std::int64_t side) {
  if (side < 1 || side > max_side) {
    throw std::invalid_argument("image sides must be in [1, " + std::to_string(max_side) + "], got " +
                                std::to_string(side));
  }
}

}  // namespace

AxisWeights axis_weights(std::int64_t input_size, std::int64_t output_size, Filter filter) {
  check_side(input_size);
  check_side(output_size);
  const double scale = static_cast<double>(input_size) / static_cast<double>(output_size);
  const double reach = filter == Filter::bicubic ? 2.0 : 1.0;
  const double support = scale >= 1.0 ? reach * scale : reach;
  const double inverse = scale >= 1.0 ? 1.0 / scale : 1.0;

  AxisWeights result;
  result.taps = static_cast<std::int32_t>(std::ceil(support)) * 2 + 1;
  result.starts.resize(static_cast<std::size_t>(output_size));
  result.counts.resize(static_cast<std::size_t>(output_size));
  std::vector<double> exact(static_cast<std::size_t>(output_size * result.taps), 0.0);
  double largest = 0.0;
  for (std::int64_t i = 0; i < output_size; ++i) {
    const double center = scale * (static_cast<double>(i) + 0.5);
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last = std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), input_size);
    const auto count = std::clamp<std::int64_t>(last - first, 0, result.taps);
    double* row = exact.data() + i * result.taps;
    double total = 0.0;
    for (std::int64_t j = 0; j < count; ++j) {
      row[j] = filter_value(filter, (static_cast<double>(j + first) - center + 0.5) * inverse);
      total += row[j];
    }
    for (std::int64_t j = 0; j < count; ++j) {
      row[j] = total != 0.0 ? row[j] / total : row[j];
      largest = std::max(largest, row[j]);
    }
    result.starts[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(first);
    result.counts[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(count);
  }
  while (result.precision < 22 &&
         static_cast<int>(0.5 + largest * static_cast<double>(1 << (result.precision + 1))) < (1 << 15)) {
    ++result.precision;
  }
  const double unit = static_cast<double>(1 << result.precision);
  result.values.resize(exact.size());
  std::transform(exact.begin(), exact.end(), result.values.begin(), [unit](double weight) {
    return static_cast<std::int16_t>(weight * unit + (weight < 0 ? -0.5 : 0.5));
  });
  return result;
}

void resize_rgb(const std::uint8_t* source, std::uint8_t* target, std::int64_t count, ImageSize from,
                ImageSize to, Filter filter) {
  const AxisWeights across = axis_weights(from.width, to.width, filter);
  const AxisWeights down = axis_weights(from.height, to.height, filter);
  const std::int64_t from_stride = from.width * channels;
  const std::int64_t to_stride = to.width * channels;
  std::vector<std::uint8_t> narrow(static_cast<std::size_t>(from.height * to_stride));
  std::vector<std::int16_t> columns(static_cast<std::size_t>(from_stride * block_rows));
  std::vector<std::int32_t> sums(static_cast<std::size_t>(to_stride));
  for (std::int64_t n = 0; n < count; ++n) {
    if (from.width == to.width) {
      std::memcpy(narrow.data(), source, narrow.size());
    } else {
      for (std::int64_t row = 0; row < from.height; row += block_rows) {
        horizontal_block(source + row * from_stride, narrow.data() + row * to_stride,
                         std::min(block_rows, from.height - row), from.width, to.width, across,
                         columns.data());
      }
    }
    if (from.height == to.height) {
      std::memcpy(target, narrow.data(), narrow.size());
    } else {
      for (std::int64_t y = 0; y < to.height; ++y) {
        vertical_row(narrow.data() + down.starts[static_cast<std::size_t>(y)] * to_stride,
                     target + y * to_stride, to_stride, down.values.data() + y * down.taps,
                     down.counts[static_cast<std::size_t>(y)], down.precision, sums.data());
      }
    }
    source += from.height * from_stride;
    target += to.height * to_stride;
  }
}

}  // namespace omni
