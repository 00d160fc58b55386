// Fuzz target: planes of any format, size, row distance and content -> RGB and patches, against the plain sums
// that define them. All memory is heap blocks of exactly the stated size, so that the sanitizer sees any
// access beyond.
//
// Input: nine bytes that choose format, sizes, row padding, filter and turn, then samples.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "omni/pixel_target.h"
#include "omni/plane_pixels.h"

namespace {

using omni::ImageSize;
using Bytes = std::vector<uint8_t>;
using Sums = std::vector<int32_t>;

struct Plane {
  Bytes bytes;
  int64_t stride;
  size_t width;  // samples
};

// `rows` rows of `width` samples, `padding` bytes apart; none behind the last row.
Plane make_plane(size_t rows, size_t width, const omni::PlaneFormat& f, size_t padding, const uint8_t* data,
                 size_t size, size_t salt) {
  const size_t sample = f.bits == 8 ? 1 : 2, stride = width * sample + padding;
  Plane plane{Bytes((rows - 1) * stride + width * sample), static_cast<int64_t>(stride), width};
  for (size_t i = 0; i < plane.bytes.size(); ++i) {
    plane.bytes[i] = static_cast<uint8_t>(data[(i + salt) % size] + i / size * 37);
  }
  for (size_t y = 0; sample == 2 && y < rows; ++y) {  // values of `bits` bits
    for (size_t x = 0; x < width; ++x) {
      uint8_t* word = plane.bytes.data() + y * stride + 2 * x;
      const unsigned value = ((word[0] | word[1] * 256u) & ((1u << f.bits) - 1)) << f.padding_bits;
      word[0] = static_cast<uint8_t>(value), word[1] = static_cast<uint8_t>(value >> 8);
    }
  }
  return plane;
}

int32_t sample_of(const Plane& plane, size_t y, size_t x, const omni::PlaneFormat& f) {
  const uint8_t* row = plane.bytes.data() + y * static_cast<size_t>(plane.stride);
  return f.bits == 8 ? row[x] : (row[2 * x] | row[2 * x + 1] * 256) >> f.padding_bits;
}

// Samples `first`, `first` + `step`, .. of each row, resized both ways.
Sums plain(const Plane& plane, size_t first, size_t step, const omni::PlaneTaps& down,
           const omni::PlaneTaps& across, ImageSize to, const omni::PlaneFormat& f) {
  Sums out(static_cast<size_t>(to.height * to.width));
  const int shift = down.bits + f.bits - 14;
  std::vector<int32_t> row((plane.width - first + step - 1) / step);
  for (size_t y = 0; y < static_cast<size_t>(to.height); ++y) {
    for (size_t x = 0; x < row.size(); ++x) {
      int32_t sum = (1 << shift) >> 1;
      for (size_t j = 0; j < static_cast<size_t>(down.counts[y]); ++j) {
        const size_t at = static_cast<size_t>(down.starts[y]) + j;
        sum += down.values[y * static_cast<size_t>(down.stride) + j] *
               sample_of(plane, at, first + x * step, f);
      }
      row[x] = std::clamp(sum >> shift, -32768, 32767);
    }
    for (size_t x = 0; x < static_cast<size_t>(to.width); ++x) {
      int32_t sum = 0;
      for (size_t j = 0; j < static_cast<size_t>(across.counts[x]); ++j) {
        sum += across.values[x * static_cast<size_t>(across.stride) + j] *
               row[static_cast<size_t>(across.starts[x]) + j];
      }
      out[y * static_cast<size_t>(to.width) + x] = sum;
    }
  }
  return out;
}

float clamped(float value) { return std::min(std::max(value, 0.0f), 255.0f); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 10) return 0;
  constexpr int depths[] = {8, 8, 8, 9, 10, 12, 14, 10};
  const int bits = depths[data[0] & 7], x_shift = data[0] >> 3 & 1, y_shift = data[0] >> 4 & 1;
  const omni::PlaneFormat f{x_shift,
                            y_shift,
                            bits,
                            (data[0] & 7) == 7 ? 6 : 0,
                            (data[0] & 32) != 0,
                            data[0] & 64 && x_shift ? 0.25 : 0.0,
                            data[0] & 128 && y_shift ? 0.25 : 0.0};
  const ImageSize from{data[1] % 96 + 1, data[2] + 1};
  const omni::PatchLayout layout{data[3] % 3 ? (data[3] & 1 ? 14 : 8) : 3, data[3] % 5 ? 2 : 1,
                                 data[3] % 7 ? 1 : 2};
  const int64_t unit = layout.patch * layout.merge;
  const ImageSize to{unit * (data[4] % 3 + 1), unit * (data[5] % 4 + 1)};
  const omni::Filter filter = data[6] & 1 ? omni::Filter::bicubic : omni::Filter::bilinear;
  const omni::Turn turn{(data[6] & 2) != 0, (data[6] & 4) != 0, (data[6] & 8) != 0};
  const size_t padding = data[7] % 40 * (bits == 8 ? 1 : 2);
  const uint8_t* samples = data + 8;
  const size_t count = size - 8;

  const ImageSize chroma{(from.height + (1 << y_shift) - 1) >> y_shift,
                         (from.width + (1 << x_shift) - 1) >> x_shift};
  const auto side = [](int64_t v) { return static_cast<size_t>(v); };
  const size_t pairs = f.chroma_interleaved ? 2 : 1;
  const Plane y = make_plane(side(from.height), side(from.width), f, padding, samples, count, 0);
  const Plane u = make_plane(side(chroma.height), side(chroma.width) * pairs, f, padding, samples, count, 5);
  const Plane v = make_plane(side(chroma.height), side(chroma.width), f, padding, samples, count, 11);
  const omni::PlaneImage image{
      {y.bytes.data(), u.bytes.data(), f.chroma_interleaved ? nullptr : v.bytes.data()},
      {y.stride, u.stride, v.stride}};
  const float one = 1.0f / (1 << 20);
  const omni::ColourMatrix m{1.164f * one, 1.793f * one, -0.213f * one, -0.533f * one,
                             2.112f * one, -248.0f,      77.0f,         -289.0f};

  const omni::PlanePixels pixels(f, from, to, filter);
  const ImageSize shown = omni::upright(to, turn);
  Bytes rgb(side(to.height * to.width * 3));
  omni::RgbTarget image_target(rgb.data(), to, turn);
  pixels(image, m, image_target);
  const size_t values = side(layout.frame_values(shown));
  const float unset = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> patches(values, unset);
  std::vector<uint16_t> halves(values);
  for (int64_t frame = 0; frame < layout.temporal; ++frame) {
    omni::PatchTarget<float> target(patches.data(), layout, frame, to, turn, {1, 1, 1}, {0, 0, 0});
    pixels(image, m, target);
    omni::PatchTarget<uint16_t> half(halves.data(), layout, frame, to, turn, {0.01f, 0.01f, 0.01f},
                                     {-1, -1, -1});
    pixels(image, m, half);
  }
  if (std::any_of(patches.begin(), patches.end(), [](float p) { return std::isnan(p); })) std::abort();

  // What is defined: row taps have 7 bits where they may.
  const double y_scale = static_cast<double>(from.height) / static_cast<double>(to.height);
  const double x_scale = static_cast<double>(from.width) / static_cast<double>(to.width);
  const auto rows_of = [&](int64_t length, double scale, double shift) {
    const bool is_coarse = bits == 8 && scale >= 2.0 && scale <= 8.0;
    return omni::plane_taps(length, to.height, scale, shift, filter, is_coarse ? 7 : 14);
  };
  const omni::PlaneTaps luma_down = rows_of(from.height, y_scale, 0.0);
  const omni::PlaneTaps chroma_down = rows_of(chroma.height, y_scale / (1 << y_shift), f.y_siting);
  const omni::PlaneTaps luma_across = omni::plane_taps(from.width, to.width, x_scale, 0.0, filter);
  const omni::PlaneTaps chroma_across = omni::plane_taps(chroma.width, to.width, x_scale / (1 << x_shift),
                                                         f.x_siting, filter);
  const Sums sy = plain(y, 0, 1, luma_down, luma_across, to, f);
  const Sums su = plain(u, 0, pairs, chroma_down, chroma_across, to, f);
  const Sums sv = f.chroma_interleaved ? plain(u, 1, 2, chroma_down, chroma_across, to, f)
                                       : plain(v, 0, 1, chroma_down, chroma_across, to, f);
  for (int64_t row = 0; row < to.height; ++row) {
    for (int64_t column = 0; column < to.width; ++column) {
      const size_t at = side(row * to.width + column);
      const float luma = static_cast<float>(sy[at]) * m.y;
      const float fu = static_cast<float>(su[at]), fv = static_cast<float>(sv[at]);
      const float expected[3] = {clamped((luma + fv * m.v_red) + m.red_offset),
                                 clamped(((luma + fu * m.u_green) + fv * m.v_green) + m.green_offset),
                                 clamped((luma + fu * m.u_blue) + m.blue_offset)};
      int64_t py = turn.transpose ? column : row, px = turn.transpose ? row : column;
      if (turn.flip_y) py = shown.height - 1 - py;
      if (turn.flip_x) px = shown.width - 1 - px;
      for (size_t c = 0; c < 3; ++c) {
        if (rgb[side(py * shown.width + px) * 3 + c] != static_cast<uint8_t>(expected[c] + 0.5f))
          std::abort();
        const int64_t place = layout.row_offset(shown, py) + layout.column_offset(px) +
                              static_cast<int64_t>(c) * layout.channel_stride();
        if (patches[side(place)] != expected[c]) std::abort();
      }
    }
  }
  std::vector<float> table(768), looked_up(values, unset);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i % 256);
  for (int64_t frame = 0; frame < layout.temporal; ++frame) {
    omni::patchify(rgb.data(), shown, layout, table.data(), looked_up.data(), frame);
  }
  for (size_t i = 0; i < values; ++i) {
    if (looked_up[i] != std::floor(patches[i] + 0.5f)) std::abort();
  }
  return 0;
}
