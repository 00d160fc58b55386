#include "omni/mask_boundary.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "omni/multiversion.h"

namespace omni {
namespace {

// half[d] = how far a disk of this radius reaches sideways at a vertical distance d, for every d that
// it and an image of `lines` lines reach
std::vector<int64_t> diskHalfWidths(int64_t radius, int64_t lines) {
  std::vector<int64_t> half(std::min(radius, lines - 1) + 1);
  int64_t w = radius;
  for (size_t d = 0; d < half.size(); ++d) {
    const auto dd = static_cast<int64_t>(d * d);
    while (w * w + dd > radius * radius) --w;
    half[d] = w;
  }
  return half;
}

// out = in, its left and its right neighbour, or-ed
OMNI_MULTIVERSION void widenByOne(const uint64_t* in, int64_t n, uint64_t* out) {
  uint64_t before = 0;
  for (int64_t k = 0; k < n; ++k) {
    const uint64_t after = k + 1 < n ? in[k + 1] : 0;
    out[k] = in[k] | in[k] << 1 | before >> 63 | in[k] >> 1 | after << 63;
    before = in[k];
  }
}

OMNI_MULTIVERSION void orInto(uint64_t* to, const uint64_t* from, int64_t n) {
  for (int64_t k = 0; k < n; ++k) to[k] |= from[k];
}

// Words of a line that hold any bit: [first, last).
struct Extent {
  int64_t first, last;
  bool empty() const { return first >= last; }
};

Extent lineExtent(const uint64_t* line, int64_t words) {
  Extent e{0, words};
  while (e.first < e.last && line[e.first] == 0) ++e.first;
  while (e.last > e.first && line[e.last - 1] == 0) --e.last;
  return e;
}

// Pixels of `from` within `radius` of a pixel of `to`: each line of `to`, widened step by step, is
// or-ed into the lines that the disk reaches, and the result is masked by `from`.
int64_t countNear(const BitPlane& from, const BitPlane& to, int64_t radius) {
  const std::vector<int64_t> half = diskHalfWidths(radius, from.lines);
  const int64_t reach = radius / 64 + 1;  // words that widening can add on each side
  BitPlane near(from.lines, from.length);
  std::vector<uint8_t> wanted(from.lines);
  for (int64_t y = 0; y < from.lines; ++y) wanted[y] = !lineExtent(from.line(y), from.words).empty();
  std::vector<uint64_t> wide(to.words), next(to.words);
  for (int64_t y = 0; y < to.lines; ++y) {
    const Extent extent = lineExtent(to.line(y), to.words);
    if (extent.empty()) continue;
    const int64_t first = std::max<int64_t>(0, extent.first - reach);
    const int64_t n = std::min(to.words, extent.last + reach) - first;
    std::copy_n(to.line(y) + first, n, wide.begin());
    int64_t width = 0;
    for (auto d = static_cast<int64_t>(half.size()) - 1; d >= 0; --d) {  // far lines need the least width
      for (; width < half[d]; ++width) {
        widenByOne(wide.data(), n, next.data());
        wide.swap(next);
      }
      if (y - d >= 0 && wanted[y - d]) orInto(near.line(y - d) + first, wide.data(), n);
      if (d > 0 && y + d < to.lines && wanted[y + d]) orInto(near.line(y + d) + first, wide.data(), n);
    }
  }
  for (size_t i = 0; i < near.bits.size(); ++i) near.bits[i] &= from.bits[i];
  return popcount(near.bits.data(), static_cast<int64_t>(near.bits.size()));
}

int64_t countBits(const BitPlane& plane) {
  return popcount(plane.bits.data(), static_cast<int64_t>(plane.bits.size()));
}

}  // namespace

BitPlane boundaryRows(const BitPlane& rows) {
  BitPlane out(rows.lines, rows.length);
  const int64_t n = rows.words;
  const int64_t lastBit = (rows.length - 1) % 64;
  // bit x of `right(line, k)` is pixel x + 1
  const auto right = [n](const uint64_t* line, int64_t k) {
    return line[k] >> 1 | (k + 1 < n ? line[k + 1] << 63 : 0);
  };
  for (int64_t y = 0; y < rows.lines; ++y) {
    const bool hasBelow = y + 1 < rows.lines;
    const uint64_t* here = rows.line(y);
    const uint64_t* below = rows.line(hasBelow ? y + 1 : y);
    uint64_t* edge = out.line(y);
    for (int64_t k = 0; k < n; ++k) {
      const uint64_t v = here[k];
      edge[k] = (v ^ right(here, k)) | (v ^ below[k]) | (v ^ right(below, k));
    }
    const uint64_t corner = uint64_t{1} << lastBit;
    edge[n - 1] &= ~corner;  // the last column looks down only
    edge[n - 1] |= (here[n - 1] ^ below[n - 1]) & corner;
    edge[n - 1] &= out.tailMask();
  }
  return out;
}

BoundaryMatch matchBoundaries(const BitPlane& a, const BitPlane& b, int64_t radius) {
  if (a.lines != b.lines || a.length != b.length) throw std::invalid_argument("masks differ in size");
  if (radius < 0) throw std::invalid_argument("radius must not be negative");
  // Beyond the diagonal a larger disk changes nothing.
  const int64_t reach = std::min(radius, a.lines + a.length);
  const BitPlane edgeA = boundaryRows(a), edgeB = boundaryRows(b);
  return {countBits(edgeA), countBits(edgeB), countNear(edgeA, edgeB, reach), countNear(edgeB, edgeA, reach)};
}

}  // namespace omni
