// Random masks for tests: a deterministic generator and pixel-by-pixel access.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "omni/bit_plane.h"

namespace omni::test {

struct ByteMask {
  int64_t height, width;
  std::vector<uint8_t> pixels;

  bool at(int64_t y, int64_t x) const { return pixels[y * width + x] != 0; }
  MaskView view() const { return {pixels.data(), height, width, width, 1}; }
};

// Each pixel is foreground with probability `density`.
inline ByteMask randomMask(std::mt19937& rng, int64_t height, int64_t width, double density) {
  ByteMask mask{height, width, std::vector<uint8_t>(height * width)};
  std::bernoulli_distribution pick(density);
  for (uint8_t& pixel : mask.pixels) pixel = pick(rng) ? static_cast<uint8_t>(1 + rng() % 255) : 0;
  return mask;
}

// Sizes on both sides of whole words, and densities from empty to full.
inline ByteMask anyMask(std::mt19937& rng) {
  constexpr int64_t kSides[] = {1, 2, 7, 63, 64, 65, 100, 128, 129, 200};
  constexpr double kDensities[] = {0, 0.01, 0.3, 0.5, 0.9, 1};
  return randomMask(rng, kSides[rng() % 10], kSides[rng() % 10], kDensities[rng() % 6]);
}

}  // namespace omni::test
