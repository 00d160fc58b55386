#include "omni/resize.h"

#include <algorithm>
#include <cstring>

#include "resize_rows.h"

namespace omni {
namespace {

using rows::channels;

// Taps whose weight was rounded to zero are not read.
void drop_zeros(AxisWeights& weights) {
  for (std::size_t i = 0; i < weights.starts.size(); ++i) {
    std::int16_t* row = weights.values.data() + i * static_cast<std::size_t>(weights.stride);
    std::int32_t& count = weights.counts[i];
    while (count > 1 && row[count - 1] == 0) --count;
    const std::int32_t zeros = static_cast<std::int32_t>(
        std::find_if(row, row + count - 1, [](int w) { return w != 0; }) - row);
    std::copy(row + zeros, row + count, row);
    std::fill(row + count - zeros, row + count, std::int16_t{0});
    weights.starts[i] += zeros;
    count -= zeros;
  }
}

// RGB rows in memory.
struct PackedRows {
  const std::uint8_t* source;
  std::int64_t stride;
  ImageSize size;

  // The row itself, or a copy in `scratch` where reading a little beyond it would leave the image.
  const std::uint8_t* row(std::int64_t index, std::uint8_t* scratch) const {
    const std::int64_t length = size.width * channels;
    if ((size.height - 1 - index) * stride >= rows::over_read) return source + index * stride;
    std::memcpy(scratch, source + index * stride, static_cast<std::size_t>(length));
    return scratch;
  }
  void copy(std::int64_t index, std::uint8_t* target) const {
    std::memcpy(target, source + index * stride, static_cast<std::size_t>(size.width * channels));
  }
};

// RGB rows made from a decoder's planes.
struct ConvertedRows {
  const YuvImage& source;
  std::int64_t width;

  const std::uint8_t* row(std::int64_t index, std::uint8_t* scratch) const {
    source.row_to_rgb(index, width, scratch);
    return scratch;
  }
  void copy(std::int64_t index, std::uint8_t* target) const { source.row_to_rgb(index, width, target); }
};

}  // namespace

AxisWeights axis_weights(std::int64_t input_size, std::int64_t output_size, Filter filter) {
  check_side(input_size);
  check_side(output_size);
  const double scale = static_cast<double>(input_size) / static_cast<double>(output_size);
  const Taps exact = make_taps(input_size, output_size, scale, 0.0, filter);

  AxisWeights result;
  result.stride = static_cast<std::int32_t>((exact.stride + 3) / 4 * 4);
  result.starts.assign(exact.starts.begin(), exact.starts.end());
  result.counts.assign(exact.counts.begin(), exact.counts.end());
  result.values.assign(static_cast<std::size_t>(output_size * result.stride), 0);
  const double largest = std::max(0.0, *std::max_element(exact.values.begin(), exact.values.end()));
  while (result.precision < 22 &&
         static_cast<int>(0.5 + largest * static_cast<double>(1 << (result.precision + 1))) < (1 << 15)) {
    ++result.precision;
  }
  const double unit = static_cast<double>(1 << result.precision);
  for (std::int64_t i = 0; i < output_size; ++i) {
    const double* row = exact.values.data() + i * exact.stride;
    std::transform(row, row + exact.stride, result.values.begin() + i * result.stride, [unit](double weight) {
      return static_cast<std::int16_t>(weight * unit + (weight < 0 ? -0.5 : 0.5));
    });
  }
  drop_zeros(result);
  return result;
}

Resizer::Resizer(ImageSize from, ImageSize to, Filter filter)
    : from_(from),
      to_(to),
      across_(axis_weights(from.width, to.width, filter)),
      down_(axis_weights(from.height, to.height, filter)),
      ring_rows_(*std::max_element(down_.counts.begin(), down_.counts.end()) + rows::block),
      ring_stride_((to.width * channels + rows::over_write + 31) / 32 * 32) {
  ring_.resize(static_cast<std::size_t>(ring_rows_ * ring_stride_));
  padded_.resize(static_cast<std::size_t>(rows::block * (from.width * channels + rows::over_read)));
  if (!rows::has_avx2()) {
    columns_.resize(static_cast<std::size_t>(from.width * channels * rows::block));
  }
}

std::uint8_t* Resizer::ring_row(std::int64_t row) { return ring_.data() + row % ring_rows_ * ring_stride_; }

// Fills ring rows [first, first + block) as far as the image goes.
template <class Rows>
void Resizer::narrow_rows(const Rows& source, std::int64_t first) {
  const std::uint8_t* sources[rows::block];
  std::uint8_t* targets[rows::block];
  const std::int64_t slot = from_.width * channels + rows::over_read;
  for (std::int64_t k = 0; k < rows::block; ++k) {
    const std::int64_t row = std::min(first + k, from_.height - 1);
    const bool again = first + k > row;  // the block ends beyond the image: the last row, same bytes
    sources[k] = again ? sources[k - 1] : source.row(row, padded_.data() + k * slot);
    targets[k] = ring_row(row);
  }
  rows::horizontal(sources, targets, from_.width, across_, columns_.data());
}

template <class Rows>
void Resizer::resize(const Rows& source, std::uint8_t* target) {
  const std::int64_t size = to_.width * channels;
  const bool as_wide = from_.width == to_.width, as_high = from_.height == to_.height;
  std::vector<const std::uint8_t*> lines(static_cast<std::size_t>(down_.stride));
  std::int64_t ready = 0;  // rows that the horizontal pass has done or skipped
  for (std::int64_t y = 0; y < to_.height; ++y, target += size) {
    const auto i = static_cast<std::size_t>(y);
    const std::int64_t start = as_high ? y : down_.starts[i];
    const std::int32_t count = as_high ? 1 : down_.counts[i];
    for (ready = std::max(ready, start); ready < start + count; ready += as_wide ? 1 : rows::block) {
      if (as_wide) {
        source.copy(ready, ring_row(ready));
      } else {
        narrow_rows(source, ready);
      }
    }
    for (std::int32_t j = 0; j < count; ++j) lines[static_cast<std::size_t>(j)] = ring_row(start + j);
    if (as_high) {
      std::memcpy(target, lines[0], static_cast<std::size_t>(size));
    } else {
      rows::vertical(lines.data(), target, size, down_.values.data() + y * down_.stride, count,
                     down_.precision);
    }
  }
}

void Resizer::operator()(const std::uint8_t* source, std::int64_t row_stride, std::uint8_t* target) {
  resize(PackedRows{source, row_stride, from_}, target);
}

void Resizer::operator()(const YuvImage& source, std::uint8_t* target) {
  resize(ConvertedRows{source, from_.width}, target);
}

}  // namespace omni
