#include <cmath>
#include <random>
#include <stdexcept>

#include "check.h"
#include "omni/flow_motion.h"
#include "omni/flow_track.h"

using namespace omni;

namespace {

struct Picture {
  Picture(int64_t h, int64_t w) : height(h), width(w), pixels(h * w) {}
  LumaView view() const { return {pixels.data(), height, width, static_cast<ptrdiff_t>(width)}; }

  int64_t height, width;
  std::vector<uint8_t> pixels;
};

// A smooth pattern shifted by (dx, dy).
Picture pattern(int64_t height, int64_t width, double dx, double dy) {
  Picture out(height, width);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const double u = static_cast<double>(x) - dx, v = static_cast<double>(y) - dy;
      out.pixels[y * width + x] = static_cast<uint8_t>(128 + 50 * std::sin(0.35 * u + 0.1 * v) +
                                                       50 * std::sin(0.4 * v - 0.12 * u));
    }
  return out;
}

Picture rectangle(int64_t height, int64_t width, const FlowBox& box) {
  Picture out(height, width);
  for (int64_t y = box.y0; y < box.y1; ++y)
    for (int64_t x = box.x0; x < box.x1; ++x) out.pixels[y * width + x] = 1;
  return out;
}

void testShiftIsFound() {
  const Picture before = pattern(80, 100, 0, 0), after = pattern(80, 100, 2.25, -1.5);
  const FlowBox box{20, 20, 60, 60}, crop{4, 4, 90, 76};
  const Picture mask = rectangle(80, 100, box);
  const auto points = selectPoints(before.view(), mask.view(), box, 60);
  CHECK(points.size() >= 40);
  const auto tracks = trackPoints(before.view(), after.view(), mask.view(), crop, points,
                                  std::vector<FlowPoint>(points.size()), 2, 10);
  std::vector<Match> matches;
  for (size_t i = 0; i < points.size(); ++i) {
    CHECK(std::fabs(tracks[i].x - points[i].x - 2.25) < 0.15);
    CHECK(std::fabs(tracks[i].y - points[i].y + 1.5) < 0.15);
    CHECK(tracks[i].backward < 0.1);
    matches.push_back({points[i], {tracks[i].x, tracks[i].y}, 1, 0, 1, 1});
  }
  // A third of the matches is wrong; they neither move the affine nor keep their weight.
  for (size_t i = 0; i < matches.size(); i += 3) matches[i].current.x += 15;
  const Motion motion = fitMotion(matches, {1, 0, 0, 0, 1, 0}, 15);
  const FlowPoint moved = motion.affine({40, 40});
  CHECK(std::fabs(moved.x - 42.25) < 0.2 && std::fabs(moved.y - 38.5) < 0.2);
  CHECK(motion.weights[1] > 0.5 && motion.weights[0] < 0.5 * motion.weights[1]);
}

void testBoxOfAMask() {
  const FlowBox box{20, 30, 61, 33};
  const FlowBox found = maskBox(rectangle(80, 100, box).view());
  CHECK(found.x0 == 20 && found.y0 == 30 && found.x1 == 61 && found.y1 == 33);
  const FlowBox none = maskBox(Picture(5, 7).view());
  CHECK(none.x0 == 0 && none.y0 == 0 && none.x1 == 0 && none.y1 == 0);
}

void testIdentityKeepsTheMask() {
  std::mt19937 rng(0);
  Picture mask(37, 53);
  for (uint8_t& p : mask.pixels) p = rng() % 2;
  const Motion still{{1, 0, 0, 0, 1, 0}, {}};
  for (const int64_t cell : {1, 8, 64}) {
    const BackwardMap map = backwardMap({}, still, 10, {0, 0, 53, 37}, cell);
    CHECK(warpMask(mask.view(), map) == mask.pixels);
  }
}

void testChecks() {
  const Picture small(10, 10);
  const FlowBox outside{0, 0, 11, 10};
  CHECK_THROWS(selectPoints(small.view(), small.view(), outside, 5), std::invalid_argument);
  CHECK_THROWS(trackPoints(small.view(), small.view(), small.view(), {0, 0, 10, 10}, {{1, 1}}, {}, 2, 5),
               std::invalid_argument);
  CHECK_THROWS(backwardMap({}, {{0, 0, 0, 0, 0, 0}, {}}, 10, {0, 0, 10, 10}, 8), std::invalid_argument);
  BackwardMap map = backwardMap({}, {{1, 0, 0, 0, 1, 0}, {}}, 10, {0, 0, 10, 10}, 8);
  map.nodes.pop_back();
  CHECK_THROWS(warpMask(small.view(), map), std::invalid_argument);
  // Positions far away, and no numbers at all, are background.
  map = backwardMap({}, {{1, 0, 0, 0, 1, 0}, {}}, 10, {0, 0, 10, 10}, 8);
  map.nodes[0] = {std::nan(""), 1e300};
  map.nodes[1] = {-1e300, std::nan("")};
  (void)warpMask(small.view(), map);
}

}  // namespace

int main() {
  testShiftIsFound();
  testBoxOfAMask();
  testIdentityKeepsTheMask();
  testChecks();
  return omni::test::failures();
}
