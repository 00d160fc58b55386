// Where converted pixels go: RGB images, or the patches that a vision transformer reads.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "omni/plane_pixels.h"

namespace omni {

// How a stored picture is turned for display: transposed first, then mirrored.
struct Turn {
  bool transpose = false, flip_x = false, flip_y = false;
};

// Patches in the order of Qwen2VLImageProcessor: temporal rows, blocks of merge x merge patches in raster
// order, the patches of a block; within a patch channel, time, y, x.
struct PatchLayout {
  std::int64_t patch, merge, temporal;

  // Throws std::invalid_argument unless the sides are positive multiples of patch * merge.
  void check(ImageSize size) const;
  std::int64_t frame_values(ImageSize size) const;  // values of one temporal row of patches
  std::int64_t frame_offset(ImageSize size, std::int64_t frame) const;
  std::int64_t row_offset(ImageSize size, std::int64_t y) const;
  std::int64_t column_offset(std::int64_t x) const;
  std::int64_t channel_stride() const { return temporal * patch * patch; }
};

// The place of pixel (row, column) of the stored picture: rows[row] + columns[column].
struct PixelOffsets {
  std::vector<std::int64_t> rows, columns;
  std::int64_t run;  // so many columns from a multiple of it on lie beside each other
};

// (height, width) of the upright picture.
ImageSize upright(ImageSize stored, const Turn& turn);

// uint8 RGB, rounded to nearest, into a contiguous upright image.
class RgbTarget : public PixelTarget {
 public:
  RgbTarget(std::uint8_t* image, ImageSize stored, const Turn& turn);
  void put(std::int64_t row, const std::array<float*, 3>& rgb) override;

 private:
  std::uint8_t* image_;
  PixelOffsets offsets_;
};

// value * scale + offset per channel, as float or, with T = std::uint16_t, as the bits of IEEE half
// precision (rounded to nearest, ties to even).
template <class T>
class PatchTarget : public PixelTarget {
 public:
  // `patches`: the whole array; `frame`: the picture's place in time.
  PatchTarget(T* patches, const PatchLayout& layout, std::int64_t frame, ImageSize stored, const Turn& turn,
              const std::array<float, 3>& scale, const std::array<float, 3>& offset);
  void put(std::int64_t row, const std::array<float*, 3>& rgb) override;

 private:
  T* patches_;
  std::int64_t channel_stride_;
  PixelOffsets offsets_;
  std::array<float, 3> scale_, offset_;
  std::vector<T> converted_;
};

// One contiguous RGB image -> its place `frame` among patches, by look-up: `tables` holds 256 values per
// channel.
template <class T>
void patchify(const std::uint8_t* image, ImageSize size, const PatchLayout& layout, const T* tables,
              T* patches, std::int64_t frame);

}  // namespace omni
