#include "omni/mask_rle.h"

#include <algorithm>
#include <stdexcept>

#include "check.h"
#include "random_mask.h"

using namespace omni;
using omni::test::ByteMask;

namespace {

int64_t countBoth(const ByteMask& a, const ByteMask& b) {
  int64_t n = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) n += a.pixels[i] != 0 && b.pixels[i] != 0;
  return n;
}

void testRoundTrip(const ByteMask& mask) {
  const BitPlane columns = packColumns(mask.view());
  const std::string text = encodeRle(columns);
  const Runs runs = parseRle(text, mask.height, mask.width);
  CHECK(formatRle(runs) == text);
  CHECK(columnsFromRuns(runs, mask.height, mask.width).bits == columns.bits);
  CHECK(runsArea(runs) == countBoth(mask, mask));
  int64_t x0 = mask.width, y0 = mask.height, x1 = 0, y1 = 0;
  for (int64_t y = 0; y < mask.height; ++y)
    for (int64_t x = 0; x < mask.width; ++x)
      if (mask.at(y, x)) {
        x0 = std::min(x0, x);
        x1 = std::max(x1, x + 1);
        y0 = std::min(y0, y);
        y1 = std::max(y1, y + 1);
      }
  const PixelBox box = runsBox(runs, mask.height);
  if (x1 == 0) x0 = y0 = 0;
  CHECK(box.x0 == x0 && box.y0 == y0 && box.x1 == x1 && box.y1 == y1);
}

void testPairs(std::mt19937& rng) {
  const ByteMask a = test::anyMask(rng);
  const ByteMask b = test::randomMask(rng, a.height, a.width, 0.3);
  const Runs ra = parseRle(encodeRle(packColumns(a.view())), a.height, a.width);
  const Runs rb = parseRle(encodeRle(packColumns(b.view())), a.height, a.width);
  const int64_t both = countBoth(a, b);
  CHECK(runsIntersection(ra, rb) == both);
  ByteMask either = a;
  for (size_t i = 0; i < a.pixels.size(); ++i) either.pixels[i] |= b.pixels[i];
  CHECK(formatRle(runsUnion(ra, rb)) == encodeRle(packColumns(either.view())));
  const int64_t total = countBoth(either, either);
  const double iou = total == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(total);
  CHECK(runsIou({ra}, {rb}, a.height)[0] == iou);
  CHECK(maskIou(a.view(), b.view()) == iou);
}

}  // namespace

int main() {
  std::mt19937 rng(2);
  for (int i = 0; i < 300; ++i) {
    testRoundTrip(test::anyMask(rng));
    testPairs(rng);
  }
  // Written by pycocotools 2.0: a 3 x 4 mask with column 1 set, and a full one.
  CHECK(formatRle({3, 3, 6}) == "336");
  CHECK(formatRle({0, 12}) == "0<");
  for (const char* bad : {"", "5", "3", "O", "T", "4 ", "PPPPPPPP0", "\x7f", "o", "oooooo?"})
    CHECK_THROWS(parseRle(bad, 2, 2), std::invalid_argument);
  CHECK_THROWS(parseRle(std::string(200, '0'), 2, 2), std::invalid_argument);
  CHECK_THROWS(parseRle("4", INT64_MAX, 2), std::invalid_argument);
  CHECK_THROWS(parseRle("4", 0, 2), std::invalid_argument);
  // Empty runs inside are legal, and vanish from what is written.
  CHECK((runsUnion(parseRle("10010", 1, 2), {2}) == Runs{1, 1}));
  const ByteMask small{1, 1, {1}}, wide{1, 2, {1, 1}};
  CHECK_THROWS(maskIou(small.view(), wide.view()), std::invalid_argument);
  return test::failures() != 0;
}
