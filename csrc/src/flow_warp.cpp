#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "omni/flow_motion.h"
#include "omni/multiversion.h"

namespace omni {
namespace {

constexpr int32_t kFraction = 256;  // positions per pixel

struct Fixed {
  int32_t x, y;
};

// Division by a cell's side, rounded down.
struct ByShift {
  int shift;
  int32_t operator()(int32_t a) const { return a >> shift; }
};

struct ByDivision {
  int32_t side;
  int32_t operator()(int32_t a) const {
    const int32_t q = a / side;
    return q - (a % side < 0);
  }
};

int32_t fixedOf(double v) {
  // Beyond these there is no mask; NaN ends there as well.
  const double low = -64.0, high = static_cast<double>(kMaxFlowSide + 64);
  return static_cast<int32_t>(std::floor((v > low ? std::min(v, high) : low) * kFraction + 0.5));
}

// Whether at least half of a pixel of the anchor's mask is covered.
class Covered {
 public:
  explicit Covered(const LumaView& mask) : mask_(mask) {}

  uint8_t operator()(const Fixed& p) const {
    const int64_t x = p.x >> 8, y = p.y >> 8;
    if (x < 0 || y < 0 || x + 1 >= mask_.width || y + 1 >= mask_.height)
      return between(p, at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1));
    const uint8_t* top = mask_.row(y) + x;
    const uint8_t* low = top + mask_.rowStride;
    return between(p, top[0] != 0, top[1] != 0, low[0] != 0, low[1] != 0);
  }

 private:
  int32_t at(int64_t x, int64_t y) const {
    return x >= 0 && y >= 0 && x < mask_.width && y < mask_.height && mask_.row(y)[x] != 0;
  }

  static uint8_t between(const Fixed& p, int32_t m00, int32_t m01, int32_t m10, int32_t m11) {
    const int32_t all = m00 + m01 + m10 + m11;
    if (all == 0 || all == 4) return all != 0;
    const int32_t a = p.x & 255, b = p.y & 255;
    const int32_t sum = (m00 * (kFraction - a) + m01 * a) * (kFraction - b) +
                        (m10 * (kFraction - a) + m11 * a) * b;
    return sum >= kFraction * kFraction / 2;
  }

  const LumaView& mask_;
};

// The map in fixed point, read row by row.
class FixedMap {
 public:
  explicit FixedMap(const BackwardMap& map) : cell_(static_cast<int32_t>(map.cell)), columns_(map.columns) {
    const int64_t height = map.box.y1 - map.box.y0, width = map.box.x1 - map.box.x0;
    checkFlowSize(height, width);
    if (map.cell < 1 || map.cell > 64 || map.rows < (height + map.cell - 1) / map.cell + 1 ||
        map.columns < (width + map.cell - 1) / map.cell + 1 ||
        static_cast<int64_t>(map.nodes.size()) != map.rows * map.columns)
      throw std::invalid_argument("the map does not cover its box");
    nodes_.reserve(map.nodes.size());
    for (const FlowPoint& p : map.nodes) nodes_.push_back({fixedOf(p.x), fixedOf(p.y)});
  }

  // Calls use(x, position) for the pixels of a row of the box.
  template <class Use>
  void row(int64_t y, int64_t width, Use use) const {
    if ((cell_ & (cell_ - 1)) == 0)
      walk(y, width, ByShift{__builtin_ctz(static_cast<unsigned>(cell_))}, use);
    else
      walk(y, width, ByDivision{cell_}, use);
  }

 private:
  template <class Divide, class Use>
  void walk(int64_t y, int64_t width, Divide divide, Use& use) const {
    const Fixed* top = nodes_.data() + y / cell_ * columns_;
    const Fixed* bottom = top + columns_;
    const int32_t down = static_cast<int32_t>(y % cell_);
    for (int64_t j = 0; j * cell_ < width; ++j) {
      const Fixed left = between(top[j], bottom[j], down, divide);
      const Fixed right = between(top[j + 1], bottom[j + 1], down, divide);
      const int64_t end = std::min<int64_t>(cell_, width - j * cell_);
      // `between`, one step after the other.
      Fixed at{left.x * cell_, left.y * cell_};
      for (int32_t x = 0; x < end; ++x) {
        use(j * cell_ + x, Fixed{divide(at.x), divide(at.y)});
        at.x += right.x - left.x;
        at.y += right.y - left.y;
      }
    }
  }

  // Positions are below 2^23 and cells up to 2^6: sums stay within 32 bits.
  template <class Divide>
  Fixed between(const Fixed& p, const Fixed& q, int32_t at, Divide divide) const {
    return {divide(p.x * (cell_ - at) + q.x * at), divide(p.y * (cell_ - at) + q.y * at)};
  }

  int32_t cell_;
  int64_t columns_;
  std::vector<Fixed> nodes_;
};

// Sums over the object's pixels of a block; of nine blocks at most.
struct Look {
  int32_t count = 0, difference = 0, sum = 0, squares = 0;

  void add(const Look& other) {
    count += other.count;
    difference += other.difference;
    sum += other.sum;
    squares += other.squares;
  }

  bool hidden() const {
    const int64_t excess = difference - kHiddenNoise * count;
    return excess > 0 && 25 * excess * excess > 16 * (int64_t{count} * squares - int64_t{sum} * sum);
  }
};

// The same sums of each column of a row of blocks.
class Columns {
 public:
  explicit Columns(int64_t width) : width_(width), sums_(4 * width) {}

  void add(const uint8_t* object, const uint8_t* was, const uint8_t* now) {
    int32_t* s = sums_.data();
    addRow(object, was, now, width_, s, s + width_, s + 2 * width_, s + 3 * width_);
  }

  // Adds them to the blocks, and starts again.
  void take(Look* blocks) {
    const int32_t* s = sums_.data();
    for (int64_t x = 0; x < width_; ++x)
      blocks[x / kHiddenBlock].add({s[x], s[width_ + x], s[2 * width_ + x], s[3 * width_ + x]});
    std::fill(sums_.begin(), sums_.end(), 0);
  }

 private:
  OMNI_MULTIVERSION static void addRow(const uint8_t* object, const uint8_t* was, const uint8_t* now,
                                       int64_t n, int32_t* count, int32_t* difference, int32_t* sum,
                                       int32_t* squares) {
    for (int64_t x = 0; x < n; ++x) {
      const int32_t inside = object[x], value = was[x] * inside;
      count[x] += inside;
      difference[x] += std::abs(was[x] - now[x]) * inside;
      sum[x] += value;
      squares[x] += value * value;
    }
  }

  int64_t width_;
  std::vector<int32_t> sums_;
};

}  // namespace

std::vector<uint8_t> warpMask(const LumaView& mask, const BackwardMap& map) {
  checkFlowSize(mask.height, mask.width);
  const FixedMap positions(map);
  const int64_t height = map.box.y1 - map.box.y0, width = map.box.x1 - map.box.x0;
  const Covered covered(mask);
  std::vector<uint8_t> out(height * width);
  for (int64_t y = 0; y < height; ++y) {
    uint8_t* row = out.data() + y * width;
    positions.row(y, width, [&](int64_t x, const Fixed& p) { row[x] = covered(p); });
  }
  return out;
}

void removeHidden(const LumaView& anchor, const LumaView& current, const BackwardMap& map,
                  std::vector<uint8_t>& warped) {
  const FixedMap positions(map);
  const int64_t height = map.box.y1 - map.box.y0, width = map.box.x1 - map.box.x0;
  checkFlowBox(map.box, current.height, current.width);
  if (static_cast<int64_t>(warped.size()) != height * width || anchor.height != current.height ||
      anchor.width != current.width)
    throw std::invalid_argument("frames and mask must have one size");
  const int64_t rows = (height + kHiddenBlock - 1) / kHiddenBlock;
  const int64_t columns = (width + kHiddenBlock - 1) / kHiddenBlock;
  std::vector<Look> blocks(rows * columns);
  std::vector<uint8_t> was(width);
  Columns sums(width);
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* object = warped.data() + y * width;
    positions.row(y, width, [&](int64_t x, const Fixed& p) {
      if (object[x] == 0) return;
      const int64_t fromX = std::clamp<int64_t>((p.x + kFraction / 2) >> 8, 0, anchor.width - 1);
      const int64_t fromY = std::clamp<int64_t>((p.y + kFraction / 2) >> 8, 0, anchor.height - 1);
      was[x] = anchor.row(fromY)[fromX];
    });
    sums.add(object, was.data(), current.row(map.box.y0 + y) + map.box.x0);
    if ((y + 1) % kHiddenBlock == 0 || y + 1 == height) sums.take(blocks.data() + y / kHiddenBlock * columns);
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      if (blocks[i * columns + j].count == 0) continue;
      Look around;
      for (int64_t k = std::max<int64_t>(i - 1, 0); k < std::min(i + 2, rows); ++k)
        for (int64_t l = std::max<int64_t>(j - 1, 0); l < std::min(j + 2, columns); ++l)
          around.add(blocks[k * columns + l]);
      if (!around.hidden()) continue;
      const int64_t left = j * kHiddenBlock, right = std::min(left + kHiddenBlock, width);
      for (int64_t y = i * kHiddenBlock; y < std::min((i + 1) * kHiddenBlock, height); ++y)
        std::fill(warped.data() + y * width + left, warped.data() + y * width + right, uint8_t{0});
    }
}

}  // namespace omni
