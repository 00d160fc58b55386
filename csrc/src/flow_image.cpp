#include "omni/flow_image.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "omni/multiversion.h"

namespace omni {
namespace {

// Repeats the edge pixels of a level into its padding.
void repeatEdges(PaddedImage& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* row = image.row(y);
    std::memset(row - kFlowPad, row[0], kFlowPad);
    std::memset(row + image.width, row[image.width - 1], kFlowPad);
  }
  for (int64_t i = 1; i <= kFlowPad; ++i) {
    std::memcpy(image.row(-i) - kFlowPad, image.row(0) - kFlowPad, image.stride);
    std::memcpy(image.row(image.height - 1 + i) - kFlowPad, image.row(image.height - 1) - kFlowPad,
                image.stride);
  }
}

// Sets a level's padding to 0.
void clearEdges(PaddedImage& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    std::memset(image.row(y) - kFlowPad, 0, kFlowPad);
    std::memset(image.row(y) + image.width, 0, kFlowPad);
  }
  std::memset(image.row(-kFlowPad) - kFlowPad, 0, kFlowPad * image.stride);
  std::memset(image.row(image.height) - kFlowPad, 0, kFlowPad * image.stride);
}

OMNI_MULTIVERSION void smoothDown(const uint8_t* const rows[5], int64_t n, uint16_t* out) {
  for (int64_t x = 0; x < n; ++x)
    out[x] = static_cast<uint16_t>(rows[0][x] + 4 * rows[1][x] + 6 * rows[2][x] + 4 * rows[3][x] +
                                   rows[4][x]);
}

OMNI_MULTIVERSION void smoothAcross(const uint16_t* sums, int64_t n, uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) {
    const uint16_t* s = sums + 2 * x;
    const uint32_t total = s[0] + 4u * s[1] + 6u * s[2] + 4u * s[3] + s[4];
    out[x] = static_cast<uint8_t>((total + 128) >> 8);
  }
}

PaddedImage halve(const PaddedImage& fine) {
  PaddedImage coarse((fine.height + 1) / 2, (fine.width + 1) / 2);
  const int64_t reach = fine.width + 4;  // columns -2 .. width + 1; the padding repeats the edges
  std::vector<uint16_t> sums(reach + 1);
  for (int64_t y = 0; y < coarse.height; ++y) {
    const uint8_t* rows[5];
    for (int64_t i = 0; i < 5; ++i) rows[i] = fine.row(2 * y + i - 2) - 2;
    smoothDown(rows, reach, sums.data());
    smoothAcross(sums.data(), coarse.width, coarse.row(y));
  }
  repeatEdges(coarse);
  return coarse;
}

OMNI_MULTIVERSION void zeroOrOne(const uint8_t* mask, int64_t n, uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = mask[x] != 0;
}

// Adds a row's bits to each column's; returns whether it has any.
OMNI_MULTIVERSION bool addRow(const uint8_t* row, int64_t n, uint8_t* columns) {
  uint8_t any = 0;
  for (int64_t x = 0; x < n; ++x) {
    columns[x] |= row[x];
    any |= row[x];
  }
  return any != 0;
}

OMNI_MULTIVERSION void growDown(const uint8_t* a, const uint8_t* b, const uint8_t* c, int64_t n,
                                uint8_t* any) {
  for (int64_t x = 0; x < n; ++x) any[x] = a[x] | b[x] | c[x];
}

OMNI_MULTIVERSION void growAcross(const uint8_t* any, int64_t n, uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = any[x] | any[x + 1] | any[x + 2];
}

OMNI_MULTIVERSION void growAcrossHalf(const uint8_t* any, int64_t n, uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = any[2 * x] | any[2 * x + 1] | any[2 * x + 2];
}

// out[x] = any of the 3 x 3 around (step * x, step * y) of `fine`, whose padding is 0; `step` is 1 or 2.
PaddedImage growMask(const PaddedImage& fine, int64_t step) {
  PaddedImage out((fine.height + step - 1) / step, (fine.width + step - 1) / step);
  std::vector<uint8_t> any(fine.width + 3);
  for (int64_t y = 0; y < out.height; ++y) {
    growDown(fine.row(step * y - 1) - 1, fine.row(step * y) - 1, fine.row(step * y + 1) - 1, fine.width + 2,
             any.data());
    (step == 1 ? growAcross : growAcrossHalf)(any.data(), out.width, out.row(y));
  }
  clearEdges(out);
  return out;
}

}  // namespace

void checkFlowSize(int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > kMaxFlowSide || width > kMaxFlowSide)
    throw std::invalid_argument("sides must be in [1, " + std::to_string(kMaxFlowSide) + "], got " +
                                std::to_string(height) + " x " + std::to_string(width));
}

void checkFlowBox(const FlowBox& box, int64_t height, int64_t width) {
  if (box.x0 < 0 || box.y0 < 0 || box.x1 > width || box.y1 > height || box.x0 >= box.x1 || box.y0 >= box.y1)
    throw std::invalid_argument("the box must lie within the image and not be empty");
}

FlowBox maskBox(const LumaView& mask) {
  std::vector<uint8_t> columns(mask.width);
  int64_t top = mask.height, bottom = 0;
  for (int64_t y = 0; y < mask.height; ++y)
    if (addRow(mask.row(y), mask.width, columns.data())) {
      top = std::min(top, y);
      bottom = y + 1;
    }
  if (bottom == 0) return {0, 0, 0, 0};
  const auto some = [](uint8_t v) { return v != 0; };
  const auto first = std::find_if(columns.begin(), columns.end(), some);
  const auto last = std::find_if(columns.rbegin(), columns.rend(), some);
  return {first - columns.begin(), top, columns.rend() - last, bottom};
}

PaddedImage::PaddedImage(int64_t h, int64_t w)
    : height(h), width(w), stride(w + 2 * kFlowPad), pixels(new uint8_t[stride * (h + 2 * kFlowPad)]) {}

FlowPyramid lumaPyramid(const LumaView& image, const FlowBox& box, int levels) {
  FlowPyramid pyramid;
  pyramid.reserve(levels);
  pyramid.emplace_back(box.y1 - box.y0, box.x1 - box.x0);
  for (int64_t y = box.y0; y < box.y1; ++y)
    std::memcpy(pyramid[0].row(y - box.y0), image.row(y) + box.x0, box.x1 - box.x0);
  repeatEdges(pyramid[0]);
  while (static_cast<int>(pyramid.size()) < levels) pyramid.push_back(halve(pyramid.back()));
  return pyramid;
}

FlowPyramid maskPyramid(const LumaView& mask, const FlowBox& box, int levels) {
  PaddedImage exact(box.y1 - box.y0, box.x1 - box.x0);
  for (int64_t y = box.y0; y < box.y1; ++y)
    zeroOrOne(mask.row(y) + box.x0, exact.width, exact.row(y - box.y0));
  clearEdges(exact);
  FlowPyramid pyramid;
  pyramid.reserve(levels);
  pyramid.push_back(growMask(exact, 1));
  while (static_cast<int>(pyramid.size()) < levels) pyramid.push_back(growMask(pyramid.back(), 2));
  return pyramid;
}

}  // namespace omni
