// 8-bit planar 4:2:0 and 4:2:2 -> RGB rows, with the arithmetic of libswscale's x86 converter (FFmpeg,
// libswscale/x86/yuv_2_rgb.asm, coefficients of libswscale/yuv2rgb.c): 16-bit products of which the upper
// half is kept, chroma of the nearest sample. Facts only; whether a build of libswscale does the same is
// checked by the caller.
#pragma once

#include <cstdint>

namespace omni {

// As libswscale's SwsContext has them: 13 fractional bits before the upper half of the product is taken.
struct YuvCoefficients {
  std::int16_t y_offset;  // of luma, times 8
  std::int16_t y;
  std::int16_t v_to_red, u_to_green, v_to_green, u_to_blue;
};

// `inverse`: libswscale's row of sws_yuv2rgb_coeffs: V to red, U to blue, -U to green, -V to green, 16.16.
YuvCoefficients yuv_coefficients(const std::int32_t inverse[4], bool is_full_range);

// A frame of planes, rows `*_stride` bytes apart; height and width are even. One row of chroma serves
// `chroma_rows` rows of luma: 2 in 4:2:0, 1 in 4:2:2.
struct YuvImage {
  const std::uint8_t *y, *u, *v;
  std::int64_t y_stride, u_stride, v_stride;
  std::int64_t chroma_rows;
  YuvCoefficients coefficients;

  // Converts row `row`, `width` pixels, to `rgb`.
  void row_to_rgb(std::int64_t row, std::int64_t width, std::uint8_t* rgb) const;
};

// One row of `width` pixels, an even number; u and v have half as many samples.
void yuv_row_to_rgb(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v, std::uint8_t* rgb,
                    std::int64_t width, const YuvCoefficients& k);

}  // namespace omni
