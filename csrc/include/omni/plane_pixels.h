// A decoder's planes -> resized RGB in one pass, with no RGB frame of the source's size in between.
//
// Luma and chroma are resized each from its own grid to the wanted pixels, rows first, then columns, in
// integers; then the colour matrix is applied in float32. All steps are defined to the last bit: the
// AVX2 version, the portable one and the numpy reference (omni_sdk/media/pixels/fast_numpy.py) agree.
//
// Units: a sample of `bits` bits is counted in steps of an 8-bit one. The pass over rows gives int16 with
// 6 fractional bits, the pass over columns int32 with 20.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "omni/resize.h"

namespace omni {

// How samples lie in memory. 8-bit samples are bytes, others little-endian 16-bit words.
struct PlaneFormat {
  int x_shift, y_shift;       // chroma has ceil(size / 2^shift) samples
  int bits;                   // of a sample, in [8, 14]
  int padding_bits;           // unused low bits of a word
  bool chroma_interleaved;    // plane 1 holds U V U V .., there is no plane 2
  double x_siting, y_siting;  // of chroma sample 0 against the centre of its luma samples, in chroma
                              // samples, towards the origin: 0 centred, 0.25 on the first of two
};

struct PlaneImage {
  std::array<const std::uint8_t*, 3> planes;
  std::array<std::int64_t, 3> strides;  // bytes between rows
};

// RGB = clamp(luma * y + chroma * .. + offset) to [0, 255], from samples with 20 fractional bits:
//   red   = (y Y + v_red V) + red_offset
//   green = ((y Y + u_green U) + v_green V) + green_offset
//   blue  = (y Y + u_blue U) + blue_offset
struct ColourMatrix {
  float y, v_red, u_green, v_green, u_blue, red_offset, green_offset, blue_offset;
};

// Where the rows of the result go.
class PixelTarget {
 public:
  virtual ~PixelTarget() = default;
  // `rgb`: three rows of `width` values in [0, 255]; may be overwritten.
  virtual void put(std::int64_t row, const std::array<float*, 3>& rgb) = 0;
};

// Weights of one axis; each row of `stride` (a multiple of 8, zero beyond the taps) sums to exactly 2^bits.
// There are rows up to a multiple of 8; those beyond the output are zero.
//
// Weights are rounded so that their running sums are: a smooth picture hardly sees that they are. So rows of
// bytes that shrink 2 to 8 times, which have many small weights, make do with 7 bits; all else has 14.
struct PlaneTaps {
  std::vector<std::int64_t> starts;
  std::vector<std::int32_t> counts;
  std::vector<std::int16_t> values;
  std::int64_t stride = 0;
  int bits = 14;
};

PlaneTaps plane_taps(std::int64_t input_size, std::int64_t output_size, double scale, double shift,
                     Filter filter, int bits = 14);

// Converts images of one format and size. May be used by several threads at a time.
class PlanePixels {
 public:
  // Throws std::invalid_argument for a side outside [1, max_side] or a format that does not exist.
  PlanePixels(const PlaneFormat& format, ImageSize from, ImageSize to, Filter filter);

  // Rows and bytes per row that each plane must have; 0 rows: no such plane.
  std::array<ImageSize, 3> plane_bytes() const;
  ImageSize size() const { return to_; }

  // Reads nothing outside the rows that plane_bytes() states.
  void operator()(const PlaneImage& image, const ColourMatrix& matrix, PixelTarget& target) const;

 private:
  PlaneTaps down(std::int64_t input_size, double scale, double shift, Filter filter) const;

  PlaneFormat format_;
  ImageSize from_, to_, chroma_;
  PlaneTaps luma_down_, luma_across_, chroma_down_, chroma_across_;
  // The weights across, in the order in which the AVX2 pass reads them.
  std::vector<std::int16_t> luma_packed_, chroma_packed_;
};

}  // namespace omni
