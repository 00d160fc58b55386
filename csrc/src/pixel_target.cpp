#include "omni/pixel_target.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "omni/multiversion.h"
#include "plane_rows.h"
#include "resize_rows.h"

namespace omni {
namespace {

// `by_row` and `by_column` give the offset of an upright row and column.
template <class Row, class Column>
PixelOffsets make_offsets(ImageSize stored, const Turn& turn, std::int64_t run, Row by_row,
                          Column by_column) {
  const ImageSize size = upright(stored, turn);
  const auto row_at = [&](std::int64_t y) { return by_row(turn.flip_y ? size.height - 1 - y : y); };
  const auto column_at = [&](std::int64_t x) { return by_column(turn.flip_x ? size.width - 1 - x : x); };
  PixelOffsets result;
  result.run = turn.transpose || turn.flip_x ? 1 : run;
  for (std::int64_t y = 0; y < stored.height; ++y) {
    result.rows.push_back(turn.transpose ? column_at(y) : row_at(y));
  }
  for (std::int64_t x = 0; x < stored.width; ++x) {
    result.columns.push_back(turn.transpose ? row_at(x) : column_at(x));
  }
  return result;
}

template <class T, std::int64_t run>
void copy_runs(const T* from, T* to, const std::vector<std::int64_t>& columns) {
  const auto width = static_cast<std::int64_t>(columns.size());
  for (std::int64_t x = 0; x < width; x += run) {
    std::memcpy(to + columns[static_cast<std::size_t>(x)], from + x, run * sizeof(T));
  }
}

template <class T>
void copy_row(const T* from, T* to, const PixelOffsets& offsets) {
  switch (offsets.run) {  // a constant size becomes a few instructions in the place of a call
    case 8: return copy_runs<T, 8>(from, to, offsets.columns);
    case 14: return copy_runs<T, 14>(from, to, offsets.columns);
    case 16: return copy_runs<T, 16>(from, to, offsets.columns);
    default:
      for (std::size_t x = 0; x < offsets.columns.size(); ++x) to[offsets.columns[x]] = from[x];
  }
}

OMNI_MULTIVERSION
void normalise(float* values, std::int64_t count, float scale, float offset) {
  for (std::int64_t x = 0; x < count; ++x) values[x] = values[x] * scale + offset;
}

// IEEE single -> half precision, to nearest, ties to even; for finite values below 65504. Below the least
// normal half (2^-14) an addition puts the bits in place and rounds them; above, an addition of integers does.
void to_half(const float* values, std::int64_t count, std::uint16_t* out) {
  const std::int64_t done = rows::has_avx2() ? count / 8 * 8 : 0;  // such processors convert by themselves
  plane_rows::to_half_avx2(values, done, out);
  for (std::int64_t x = done; x < count; ++x) {
    std::uint32_t bits;
    std::memcpy(&bits, values + x, sizeof bits);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    const float shifted = magnitude + 0.5f;
    std::uint32_t small;
    std::memcpy(&small, &shifted, sizeof small);
    small -= 0x3f000000u;
    const std::uint32_t rounded = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    out[x] = static_cast<std::uint16_t>(sign | (bits < (113u << 23) ? small : rounded));
  }
}

OMNI_MULTIVERSION
void interleave(const float* red, const float* green, const float* blue, std::int64_t count,
                std::uint8_t* __restrict out) {
  for (std::int64_t x = 0; x < count; ++x) {
    out[3 * x] = static_cast<std::uint8_t>(static_cast<int>(red[x] + 0.5f));
    out[3 * x + 1] = static_cast<std::uint8_t>(static_cast<int>(green[x] + 0.5f));
    out[3 * x + 2] = static_cast<std::uint8_t>(static_cast<int>(blue[x] + 0.5f));
  }
}

template <class T>
void patchify_row(const std::uint8_t* pixels, std::int64_t width, const PatchLayout& layout, const T* tables,
                  T* row) {
  for (std::int64_t x = 0; x < width; x += layout.patch) {
    T* target = row + layout.column_offset(x);
    for (std::int64_t k = 0; k < layout.patch; ++k, ++target, pixels += 3) {
      target[0] = tables[pixels[0]];
      target[layout.channel_stride()] = tables[256 + pixels[1]];
      target[2 * layout.channel_stride()] = tables[512 + pixels[2]];
    }
  }
}

}  // namespace

ImageSize upright(ImageSize stored, const Turn& turn) {
  return turn.transpose ? ImageSize{stored.width, stored.height} : stored;
}

void PatchLayout::check(ImageSize size) const {
  const std::int64_t largest = 1 << 10;
  if (patch < 1 || patch > largest || merge < 1 || merge > largest || temporal < 1 || temporal > largest ||
      size.height < 1 || size.width < 1 || size.height % (patch * merge) || size.width % (patch * merge)) {
    throw std::invalid_argument("sides must be multiples of patch * merge");
  }
}

std::int64_t PatchLayout::frame_values(ImageSize size) const {
  return size.height * size.width * 3 * temporal;
}

std::int64_t PatchLayout::frame_offset(ImageSize size, std::int64_t frame) const {
  return frame / temporal * frame_values(size) + frame % temporal * patch * patch;
}

std::int64_t PatchLayout::row_offset(ImageSize size, std::int64_t y) const {
  const std::int64_t row = y / patch, blocks = size.width / (patch * merge);
  const std::int64_t patches = row / merge * blocks * merge * merge + row % merge * merge;
  return patches * 3 * channel_stride() + y % patch * patch;
}

std::int64_t PatchLayout::column_offset(std::int64_t x) const {
  const std::int64_t column = x / patch;
  const std::int64_t patches = column / merge * merge * merge + column % merge;
  return patches * 3 * channel_stride() + x % patch;
}

RgbTarget::RgbTarget(std::uint8_t* image, ImageSize stored, const Turn& turn)
    : image_(image),
      offsets_(make_offsets(
          stored, turn, stored.width, [&](std::int64_t y) { return y * upright(stored, turn).width * 3; },
          [](std::int64_t x) { return x * 3; })) {}

void RgbTarget::put(std::int64_t row, const std::array<float*, 3>& rgb) {
  std::uint8_t* target = image_ + offsets_.rows[static_cast<std::size_t>(row)];
  const auto width = static_cast<std::int64_t>(offsets_.columns.size());
  if (offsets_.run == width) return interleave(rgb[0], rgb[1], rgb[2], width, target);
  for (std::int64_t x = 0; x < width; ++x) {
    interleave(rgb[0] + x, rgb[1] + x, rgb[2] + x, 1, target + offsets_.columns[static_cast<std::size_t>(x)]);
  }
}

template <class T>
PatchTarget<T>::PatchTarget(T* patches, const PatchLayout& layout, std::int64_t frame, ImageSize stored,
                            const Turn& turn, const std::array<float, 3>& scale,
                            const std::array<float, 3>& offset)
    : channel_stride_(layout.channel_stride()), scale_(scale), offset_(offset) {
  const ImageSize size = upright(stored, turn);
  layout.check(size);
  patches_ = patches + layout.frame_offset(size, frame);
  offsets_ = make_offsets(
      stored, turn, layout.patch, [&](std::int64_t y) { return layout.row_offset(size, y); },
      [&](std::int64_t x) { return layout.column_offset(x); });
  if (!std::is_same_v<T, float>) converted_.resize(static_cast<std::size_t>(stored.width));
}

template <class T>
void PatchTarget<T>::put(std::int64_t row, const std::array<float*, 3>& rgb) {
  const auto width = static_cast<std::int64_t>(offsets_.columns.size());
  for (std::size_t channel = 0; channel < 3; ++channel) {
    T* target = patches_ + offsets_.rows[static_cast<std::size_t>(row)] +
                static_cast<std::int64_t>(channel) * channel_stride_;
    normalise(rgb[channel], width, scale_[channel], offset_[channel]);
    if constexpr (std::is_same_v<T, float>) {
      copy_row(rgb[channel], target, offsets_);
    } else {
      to_half(rgb[channel], width, converted_.data());
      copy_row(converted_.data(), target, offsets_);
    }
  }
}

template <class T>
void patchify(const std::uint8_t* image, ImageSize size, const PatchLayout& layout, const T* tables,
              T* patches, std::int64_t frame) {
  T* target = patches + layout.frame_offset(size, frame);
  for (std::int64_t y = 0; y < size.height; ++y) {
    patchify_row(image + y * size.width * 3, size.width, layout, tables, target + layout.row_offset(size, y));
  }
}

template class PatchTarget<float>;
template class PatchTarget<std::uint16_t>;
template void patchify<float>(const std::uint8_t*, ImageSize, const PatchLayout&, const float*, float*,
                              std::int64_t);
template void patchify<std::uint16_t>(const std::uint8_t*, ImageSize, const PatchLayout&,
                                      const std::uint16_t*, std::uint16_t*, std::int64_t);

}  // namespace omni
