// The inner passes of the resize and of the colour conversion, each in a portable and an AVX2 version that
// give the same bytes.
#pragma once

#include <cstdint>

#include "omni/resize.h"

namespace omni::rows {

constexpr std::int64_t channels = 3;
constexpr std::int64_t block = 8;       // rows that the horizontal pass handles at once
constexpr std::int64_t over_read = 16;  // bytes that it may read beyond the last pixel of a row
constexpr std::int64_t over_write = 4;  // bytes that it may write beyond the last pixel of a row

// `block` rows of pixels -> rows of weights.starts.size() pixels.
// `columns` is scratch of width * channels * block (portable version only).
void horizontal(const std::uint8_t* const* sources, std::uint8_t* const* targets, std::int64_t from_width,
                const AxisWeights& weights, std::int16_t* columns);

// One row of `size` bytes as the weighted sum of `count` rows, count <= the weights' stride.
void vertical(const std::uint8_t* const* sources, std::uint8_t* target, std::int64_t size,
              const std::int16_t* taps, std::int32_t count, unsigned precision);

bool has_avx2();
void horizontal_avx2(const std::uint8_t* const* sources, std::uint8_t* const* targets,
                     const AxisWeights& weights);
// Handles whole runs of 32 bytes; returns how many bytes it has done.
std::int64_t vertical_avx2(const std::uint8_t* const* sources, std::uint8_t* target, std::int64_t size,
                           const std::int16_t* taps, std::int32_t count, unsigned precision);
// Converts whole runs of 16 pixels; returns how many pixels it has done.
std::int64_t yuv_avx2(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v, std::uint8_t* rgb,
                      std::int64_t width, const YuvCoefficients& k);

}  // namespace omni::rows
