#include "omni/yuv_rgb.h"

#include <algorithm>

#include "resize_rows.h"

namespace omni {
namespace {

std::int16_t round_to_16(std::int64_t value) {
  return static_cast<std::int16_t>(std::clamp<std::int64_t>((value + (1 << 15)) >> 16, -32767, 32767));
}

inline std::int32_t upper(std::int32_t a, std::int32_t b) { return (a * b) >> 16; }

inline std::uint8_t byte_of(std::int32_t value) {
  return static_cast<std::uint8_t>(std::min(std::max(value, 0), 255));
}

}  // namespace

YuvCoefficients yuv_coefficients(const std::int32_t inverse[4], bool is_full_range) {
  std::int64_t red = inverse[0], blue = inverse[1], u_green = -std::int64_t{inverse[2]},
               v_green = -std::int64_t{inverse[3]}, luma = 1 << 16, offset = 0;
  if (is_full_range) {
    red = red * 224 / 255;
    blue = blue * 224 / 255;
    u_green = u_green * 224 / 255;
    v_green = v_green * 224 / 255;
  } else {
    luma = luma * 255 / 219;
    offset = 16 << 16;
  }
  constexpr std::int64_t scale = 1 << 13;
  return {round_to_16(offset * 8),      round_to_16(luma * scale),    round_to_16(red * scale),
          round_to_16(u_green * scale), round_to_16(v_green * scale), round_to_16(blue * scale)};
}

void yuv_row_to_rgb(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v, std::uint8_t* rgb,
                    std::int64_t width, const YuvCoefficients& k) {
  std::int64_t x = rows::has_avx2() ? rows::yuv_avx2(y, u, v, rgb, width, k) : 0;
  for (; x + 2 <= width; x += 2) {
    const std::int32_t du = (u[x / 2] - 128) * 8, dv = (v[x / 2] - 128) * 8;
    const std::int32_t red = upper(dv, k.v_to_red);
    const std::int32_t green = upper(du, k.u_to_green) + upper(dv, k.v_to_green);
    const std::int32_t blue = upper(du, k.u_to_blue);
    for (std::int64_t i = x; i < x + 2; ++i) {
      const std::int32_t luma = upper(y[i] * 8 - k.y_offset, k.y);
      rgb[i * 3] = byte_of(luma + red);
      rgb[i * 3 + 1] = byte_of(luma + green);
      rgb[i * 3 + 2] = byte_of(luma + blue);
    }
  }
}

void YuvImage::row_to_rgb(std::int64_t row, std::int64_t width, std::uint8_t* rgb) const {
  const std::int64_t chroma_row = row / chroma_rows;
  yuv_row_to_rgb(y + row * y_stride, u + chroma_row * u_stride, v + chroma_row * v_stride, rgb, width,
                 coefficients);
}

}  // namespace omni
