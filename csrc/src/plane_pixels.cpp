#include "omni/plane_pixels.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "omni/multiversion.h"
#include "plane_rows.h"

namespace omni {
namespace {

constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::int64_t subsampled(std::int64_t side, int shift) { return (side + (1 << shift) - 1) >> shift; }

// Resizes one plane, row by row.
class PlaneReader {
 public:
  PlaneReader(const std::uint8_t* data, std::int64_t stride, std::int64_t size, const PlaneFormat& format,
              const PlaneTaps& down, const PlaneTaps& across)
      : data_(data),
        stride_(stride),
        size_(size),
        format_(format),
        down_(down),
        lines_(static_cast<std::size_t>(down.stride)),
        row_(static_cast<std::size_t>(size + across.stride)) {}

  // Row `y` of the result: `size` samples, and zeros behind them for the pass over columns.
  std::int16_t* row(std::int64_t y) {
    const auto i = static_cast<std::size_t>(y);
    const std::int32_t count = down_.counts[i];
    for (std::int32_t j = 0; j < count; ++j) {
      lines_[static_cast<std::size_t>(j)] = data_ + (down_.starts[i] + j) * stride_;
    }
    plane_rows::sum_rows(lines_.data(), count, down_.values.data() + y * down_.stride, down_.bits, size_,
                         format_, row_.data());
    return row_.data();
  }

 private:
  const std::uint8_t* data_;
  std::int64_t stride_, size_;
  const PlaneFormat& format_;
  const PlaneTaps& down_;
  std::vector<const std::uint8_t*> lines_;
  std::vector<std::int16_t> row_;
};

OMNI_MULTIVERSION
void apply_matrix(const std::int32_t* y, const std::int32_t* u, const std::int32_t* v, std::int64_t width,
                  const ColourMatrix& m, float* __restrict red, float* __restrict green,
                  float* __restrict blue) {
  for (std::int64_t x = 0; x < width; ++x) {
    const float luma = static_cast<float>(y[x]) * m.y;
    const float fu = static_cast<float>(u[x]), fv = static_cast<float>(v[x]);
    const float r = (luma + fv * m.v_red) + m.red_offset;
    const float g = ((luma + fu * m.u_green) + fv * m.v_green) + m.green_offset;
    const float b = (luma + fu * m.u_blue) + m.blue_offset;
    red[x] = std::min(std::max(r, 0.0f), 255.0f);
    green[x] = std::min(std::max(g, 0.0f), 255.0f);
    blue[x] = std::min(std::max(b, 0.0f), 255.0f);
  }
}

OMNI_MULTIVERSION
void split_pairs(const std::int16_t* pairs, std::int64_t count, std::int16_t* __restrict first,
                 std::int16_t* __restrict second) {
  for (std::int64_t x = 0; x < count; ++x) {
    first[x] = pairs[2 * x];
    second[x] = pairs[2 * x + 1];
  }
}

void check_format(const PlaneFormat& f) {
  const bool has_siting = f.x_siting >= 0 && f.x_siting <= 0.5 && f.y_siting >= 0 && f.y_siting <= 0.5;
  if (f.x_shift < 0 || f.x_shift > 2 || f.y_shift < 0 || f.y_shift > 2 || f.bits < 8 || f.bits > 14 ||
      f.padding_bits < 0 || f.padding_bits > (f.bits == 8 ? 0 : 16 - f.bits) || !has_siting) {
    throw std::invalid_argument("no such plane format");
  }
}

}  // namespace

PlaneTaps plane_taps(std::int64_t input_size, std::int64_t output_size, double scale, double shift,
                     Filter filter, int bits) {
  const Taps exact = make_taps(input_size, output_size, scale, shift, filter);
  PlaneTaps result;
  result.bits = bits;
  const std::int64_t rows = round_up(output_size, plane_rows::group);
  std::vector<std::int16_t> rounded(static_cast<std::size_t>(output_size * exact.stride));
  result.starts.assign(static_cast<std::size_t>(rows), 0);
  result.counts.assign(static_cast<std::size_t>(rows), 0);
  std::int64_t most = 1;
  for (std::int64_t i = 0; i < output_size; ++i) {
    const double* weights = exact.values.data() + i * exact.stride;
    std::int16_t* row = rounded.data() + i * exact.stride;
    const auto count = exact.counts[static_cast<std::size_t>(i)];
    double sum = 0.0;
    std::int64_t before = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      sum += weights[j];
      const auto rounded_sum = static_cast<std::int64_t>(std::floor(sum * (1 << bits) + 0.5));
      row[j] = static_cast<std::int16_t>(rounded_sum - before);
      before = rounded_sum;
    }
    std::int64_t first = 0, last = std::max<std::int64_t>(count, 1);
    while (first + 1 < last && row[first] == 0) ++first;
    while (last - 1 > first && row[last - 1] == 0) --last;
    std::move(row + first, row + last, row);
    std::fill(row + (last - first), row + exact.stride, std::int16_t{0});
    result.starts[static_cast<std::size_t>(i)] = exact.starts[static_cast<std::size_t>(i)] + first;
    result.counts[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(last - first);
    most = std::max(most, last - first);
  }
  result.stride = round_up(most, 8);
  result.values.assign(static_cast<std::size_t>(rows * result.stride), 0);
  for (std::int64_t i = 0; i < output_size; ++i) {
    std::copy_n(rounded.data() + i * exact.stride, result.counts[static_cast<std::size_t>(i)],
                result.values.data() + i * result.stride);
  }
  return result;
}

PlanePixels::PlanePixels(const PlaneFormat& format, ImageSize from, ImageSize to, Filter filter)
    : format_(format), from_(from), to_(to) {
  check_format(format);
  for (const std::int64_t side : {from.height, from.width, to.height, to.width}) check_side(side);
  chroma_ = {subsampled(from.height, format.y_shift), subsampled(from.width, format.x_shift)};
  const double y_scale = static_cast<double>(from.height) / static_cast<double>(to.height);
  const double x_scale = static_cast<double>(from.width) / static_cast<double>(to.width);
  luma_down_ = down(from.height, y_scale, 0.0, filter);
  luma_across_ = plane_taps(from.width, to.width, x_scale, 0.0, filter);
  chroma_down_ = down(chroma_.height, y_scale / (1 << format.y_shift), format.y_siting, filter);
  chroma_across_ = plane_taps(chroma_.width, to.width, x_scale / (1 << format.x_shift), format.x_siting,
                              filter);
  luma_packed_ = plane_rows::pack_taps(luma_across_);
  chroma_packed_ = plane_rows::pack_taps(chroma_across_);
}

PlaneTaps PlanePixels::down(std::int64_t input_size, double scale, double shift, Filter filter) const {
  if (format_.bits == 8 && scale >= 2.0 && scale <= 8.0) {
    PlaneTaps coarse = plane_taps(input_size, to_.height, scale, shift, filter, plane_rows::coarse_bits);
    if (plane_rows::fits_16_bits(coarse)) return coarse;
  }
  return plane_taps(input_size, to_.height, scale, shift, filter);
}

std::array<ImageSize, 3> PlanePixels::plane_bytes() const {
  const std::int64_t sample = format_.bits == 8 ? 1 : 2;
  const ImageSize luma{from_.height, from_.width * sample};
  const ImageSize chroma{chroma_.height, chroma_.width * sample};
  if (format_.chroma_interleaved) return {luma, {chroma.height, chroma.width * 2}, {0, 0}};
  return {luma, chroma, chroma};
}

void PlanePixels::operator()(const PlaneImage& image, const ColourMatrix& matrix, PixelTarget& target) const {
  const bool in_pairs = format_.chroma_interleaved;
  const std::int64_t first_size = chroma_.width * (in_pairs ? 2 : 1),
                     second_size = in_pairs ? 0 : chroma_.width;
  PlaneReader luma(image.planes[0], image.strides[0], from_.width, format_, luma_down_, luma_across_);
  PlaneReader first(image.planes[1], image.strides[1], first_size, format_, chroma_down_, chroma_across_);
  PlaneReader second(image.planes[2], image.strides[2], second_size, format_, chroma_down_, chroma_across_);
  const auto padded = static_cast<std::size_t>(in_pairs ? chroma_.width + chroma_across_.stride : 0);
  std::vector<std::int16_t> split_u(padded), split_v(padded);
  const auto width = static_cast<std::size_t>(round_up(to_.width, plane_rows::group));
  std::vector<std::int32_t> y(width), u(width), v(width);
  std::vector<float> red(width), green(width), blue(width);
  for (std::int64_t row = 0; row < to_.height; ++row) {
    plane_rows::sum_columns(luma.row(row), luma_across_, luma_packed_.data(), y.data());
    const std::int16_t* u_row = first.row(row);
    const std::int16_t* v_row = split_v.data();
    if (in_pairs) {
      split_pairs(u_row, chroma_.width, split_u.data(), split_v.data());
      u_row = split_u.data();
    } else {
      v_row = second.row(row);
    }
    plane_rows::sum_columns(u_row, chroma_across_, chroma_packed_.data(), u.data());
    plane_rows::sum_columns(v_row, chroma_across_, chroma_packed_.data(), v.data());
    apply_matrix(y.data(), u.data(), v.data(), to_.width, matrix, red.data(), green.data(), blue.data());
    target.put(row, {red.data(), green.data(), blue.data()});
  }
}

}  // namespace omni
