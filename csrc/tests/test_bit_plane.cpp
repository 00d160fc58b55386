#include "omni/bit_plane.h"

#include <stdexcept>

#include "check.h"
#include "random_mask.h"

using namespace omni;
using omni::test::ByteMask;

namespace {

bool bitOf(const BitPlane& plane, int64_t line, int64_t i) {
  return (plane.line(line)[i / 64] >> (i % 64)) & 1;
}

bool paddingIsZero(const BitPlane& plane) {
  for (int64_t i = 0; i < plane.lines; ++i)
    if (plane.line(i)[plane.words - 1] & ~plane.tailMask()) return false;
  return true;
}

void testPackAndTranspose(std::mt19937& rng) {
  const ByteMask mask = test::anyMask(rng);
  const BitPlane rows = packRows(mask.view()), columns = packColumns(mask.view());
  CHECK(rows.lines == mask.height && rows.length == mask.width);
  CHECK(columns.lines == mask.width && columns.length == mask.height);
  bool equal = true;
  for (int64_t y = 0; y < mask.height; ++y)
    for (int64_t x = 0; x < mask.width; ++x)
      equal &= bitOf(rows, y, x) == mask.at(y, x) && bitOf(columns, x, y) == mask.at(y, x);
  CHECK(equal);
  CHECK(paddingIsZero(rows) && paddingIsZero(columns));
  CHECK(transpose(columns).bits == rows.bits);
  std::vector<uint8_t> bytes(mask.pixels.size(), 7);
  unpackRows(rows, bytes.data());
  bool same = true;
  for (size_t i = 0; i < bytes.size(); ++i) same &= bytes[i] == (mask.pixels[i] != 0);
  CHECK(same);
}

void testStrides(std::mt19937& rng) {
  const ByteMask mask = test::randomMask(rng, 70, 90, 0.4);
  const uint8_t* lastPixel = mask.pixels.data() + mask.pixels.size() - 1;
  const BitPlane turned = packRows({lastPixel, 70, 90, -90, -1});  // rotated by 180 degrees
  const BitPlane sparse = packRows({mask.pixels.data(), 23, 30, 3 * 90, 3});
  const BitPlane swapped = packRows({mask.pixels.data(), 90, 70, 1, 90});  // transposed
  bool equal = true;
  for (int64_t y = 0; y < 70; ++y)
    for (int64_t x = 0; x < 90; ++x)
      equal &= bitOf(turned, 69 - y, 89 - x) == mask.at(y, x) && bitOf(swapped, x, y) == mask.at(y, x);
  for (int64_t y = 0; y < 23; ++y)
    for (int64_t x = 0; x < 30; ++x) equal &= bitOf(sparse, y, x) == mask.at(3 * y, 3 * x);
  CHECK(equal);
}

void testPackWord(std::mt19937& rng) {
  const ByteMask mask = test::randomMask(rng, 1, 64, 0.5);
  CHECK(packWord(mask.pixels.data()) == packWordPortable(mask.pixels.data()));
  CHECK(packWordPortable(mask.pixels.data()) == packRows(mask.view()).bits[0]);
}

void testEdits(std::mt19937& rng) {
  const auto begin = static_cast<int64_t>(rng() % 200), end = static_cast<int64_t>(rng() % 201);
  uint64_t ones[4] = {0, 0, 0, 0}, zeros[4];
  for (uint64_t& word : zeros) word = ~uint64_t{0};
  setBits(ones, begin, end);
  clearBits(zeros, begin, end);
  bool equal = true;
  for (int64_t i = 0; i < 256; ++i)
    equal &= ((ones[i / 64] >> (i % 64)) & 1) == (i >= begin && i < end ? 1u : 0u);
  for (int k = 0; k < 4; ++k) equal &= ones[k] == ~zeros[k];
  CHECK(equal);
  CHECK(popcount(ones, 4) == (end > begin ? end - begin : 0));
}

}  // namespace

int main() {
  std::mt19937 rng(1);
  for (int i = 0; i < 200; ++i) {
    testPackAndTranspose(rng);
    testPackWord(rng);
    testEdits(rng);
  }
  testStrides(rng);
  CHECK_THROWS(BitPlane(0, 1), std::invalid_argument);
  CHECK_THROWS(BitPlane(1, -1), std::invalid_argument);
  CHECK_THROWS(BitPlane(kMaxMaskPixels, 2), std::invalid_argument);
  CHECK_THROWS(BitPlane(INT64_MAX, INT64_MAX), std::invalid_argument);
  return test::failures() != 0;
}
