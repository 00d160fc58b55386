// Upsampling, clean-up and boundaries against pixel-by-pixel references.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>

#include "check.h"
#include "omni/mask_boundary.h"
#include "omni/mask_clean.h"
#include "omni/mask_upsample.h"
#include "random_mask.h"

using namespace omni;
using omni::test::ByteMask;

namespace {

// The formula of Note [Rounding of the upsampling], one pixel at a time, with no block skipped.
struct Tap {
  int64_t lo, hi;
  float w0, w1;
};

Tap tapOf(int64_t i, int64_t in, int64_t out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float source = std::max(std::fma(scale, static_cast<float>(i) + 0.5f, -0.5f), 0.0f);
  const int64_t lo = std::min(static_cast<int64_t>(source), in - 1);
  const float w1 = std::min(source - static_cast<float>(lo), 1.0f);
  return {lo, std::min(lo + 1, in - 1), 1.0f - w1, w1};
}

void testUpsample(std::mt19937& rng) {
  const int64_t h = 1 + rng() % 20, w = 1 + rng() % 90, H = 1 + rng() % 150, W = 1 + rng() % 300;
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(h * w);
  for (float& v : logits) v = normal(rng);
  for (int64_t x = 0; x < w / 2; ++x) logits[x] = 5;  // whole blocks on one side
  if (rng() % 4 == 0) logits[rng() % logits.size()] = std::numeric_limits<float>::quiet_NaN();
  if (rng() % 4 == 0) logits[rng() % logits.size()] = std::numeric_limits<float>::infinity();
  const float threshold = rng() % 2 ? 0.0f : logits[0];
  const BitPlane rows = upsampleLogits(logits.data(), h, w, H, W, threshold);
  bool equal = true;
  for (int64_t y = 0; y < H; ++y) {
    const Tap ty = tapOf(y, h, H);
    for (int64_t x = 0; x < W; ++x) {
      const Tap tx = tapOf(x, w, W);
      const auto across = [&](int64_t row) {
        return std::fma(logits[row * w + tx.lo], tx.w0, logits[row * w + tx.hi] * tx.w1);
      };
      const bool expected = std::fma(across(ty.lo), ty.w0, across(ty.hi) * ty.w1) > threshold;
      equal &= expected == (((rows.line(y)[x / 64] >> (x % 64)) & 1) != 0);
    }
  }
  CHECK(equal);
}

// Flips every component (of `value`) that `flip(area, touchesBorder)` wants, by flood fill.
void floodFlip(ByteMask& mask, bool value, bool diagonal, const std::function<bool(int64_t, bool)>& flip) {
  std::vector<uint8_t> seen(mask.pixels.size());
  for (int64_t start = 0; start < static_cast<int64_t>(seen.size()); ++start) {
    if (seen[start] || (mask.pixels[start] != 0) != value) continue;
    std::vector<int64_t> component{start};
    seen[start] = 1;
    bool border = false;
    for (size_t i = 0; i < component.size(); ++i) {
      const int64_t y = component[i] / mask.width, x = component[i] % mask.width;
      border |= y == 0 || x == 0 || y == mask.height - 1 || x == mask.width - 1;
      for (int64_t v = std::max<int64_t>(y - 1, 0); v <= std::min(y + 1, mask.height - 1); ++v)
        for (int64_t u = std::max<int64_t>(x - 1, 0); u <= std::min(x + 1, mask.width - 1); ++u) {
          const int64_t at = v * mask.width + u;
          if ((!diagonal && u != x && v != y) || seen[at] || mask.at(v, u) != value) continue;
          seen[at] = 1;
          component.push_back(at);
        }
    }
    if (!flip(static_cast<int64_t>(component.size()), border)) continue;
    for (int64_t at : component) mask.pixels[at] = value ? 0 : 1;
  }
}

void testClean(std::mt19937& rng) {
  ByteMask mask = test::anyMask(rng);
  const int64_t minArea = rng() % 20, maxHole = rng() % 20;
  BitPlane rows = packRows(mask.view());
  cleanMask(rows, minArea, maxHole);
  floodFlip(mask, true, true, [&](int64_t area, bool) { return area < minArea; });
  floodFlip(mask, false, false, [&](int64_t area, bool border) { return area <= maxHole && !border; });
  CHECK(rows.bits == packRows(mask.view()).bits);
}

ByteMask edgeOf(const ByteMask& m) {
  ByteMask edge{m.height, m.width, std::vector<uint8_t>(m.pixels.size())};
  for (int64_t y = 0; y < m.height; ++y)
    for (int64_t x = 0; x < m.width; ++x) {
      const bool v = m.at(y, x), right = x + 1 < m.width, down = y + 1 < m.height;
      edge.pixels[y * m.width + x] = (right && v != m.at(y, x + 1)) || (down && v != m.at(y + 1, x)) ||
                                     (right && down && v != m.at(y + 1, x + 1));
    }
  return edge;
}

int64_t countNear(const ByteMask& from, const ByteMask& to, int64_t radius) {
  int64_t n = 0;
  for (int64_t y = 0; y < from.height; ++y)
    for (int64_t x = 0; x < from.width; ++x) {
      bool found = false;
      for (int64_t v = std::max<int64_t>(0, y - radius);
           from.at(y, x) && v <= std::min(y + radius, from.height - 1); ++v)
        for (int64_t u = std::max<int64_t>(0, x - radius); u <= std::min(x + radius, from.width - 1); ++u)
          found |= to.at(v, u) && (v - y) * (v - y) + (u - x) * (u - x) <= radius * radius;
      n += found;
    }
  return n;
}

void testBoundary(std::mt19937& rng) {
  const ByteMask a = test::anyMask(rng);
  const ByteMask b = test::randomMask(rng, a.height, a.width, rng() % 2 ? 0.002 : 0.4);
  const ByteMask edgeA = edgeOf(a), edgeB = edgeOf(b);
  CHECK(boundaryRows(packRows(a.view())).bits == packRows(edgeA.view()).bits);
  const int64_t radius = rng() % 9;
  const BoundaryMatch match = matchBoundaries(packRows(a.view()), packRows(b.view()), radius);
  CHECK(match.countA == countNear(edgeA, edgeA, 0) && match.countB == countNear(edgeB, edgeB, 0));
  CHECK(match.matchedA == countNear(edgeA, edgeB, radius));
  CHECK(match.matchedB == countNear(edgeB, edgeA, radius));
}

}  // namespace

int main() {
  std::mt19937 rng(3);
  for (int i = 0; i < 60; ++i) {
    testUpsample(rng);
    testClean(rng);
    testBoundary(rng);
  }
  const BitPlane small(2, 3), other(3, 2);
  CHECK_THROWS(matchBoundaries(small, other, 1), std::invalid_argument);
  CHECK_THROWS(matchBoundaries(small, small, -1), std::invalid_argument);
  CHECK(matchBoundaries(small, small, INT64_MAX).matchedA == 0);
  const float logit = 1;
  CHECK_THROWS(upsampleLogits(&logit, 1, 1, INT64_MAX, INT64_MAX, 0), std::invalid_argument);
  CHECK_THROWS(upsampleLogits(&logit, 0, 1, 1, 1, 0), std::invalid_argument);
  return test::failures() != 0;
}
