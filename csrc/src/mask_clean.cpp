#include "omni/mask_clean.h"

#include <utility>
#include <vector>

namespace omni {
namespace {

// A maximal horizontal run of pixels of one value: [begin, end) of a row.
struct Run {
  int32_t begin, end;
  int32_t label;
};

// Components as a union-find forest over provisional labels; areas are kept at the roots.
class Components {
 public:
  int32_t add(int64_t area, bool open) {
    const auto label = static_cast<int32_t>(parent_.size());
    parent_.push_back(label);
    area_.push_back(area);
    open_.push_back(open);
    return label;
  }

  int32_t root(int32_t label) {
    while (parent_[label] != label) {
      parent_[label] = parent_[parent_[label]];
      label = parent_[label];
    }
    return label;
  }

  void extend(int32_t root, int64_t area, bool open) {
    area_[root] += area;
    open_[root] |= static_cast<uint8_t>(open);
  }

  int32_t join(int32_t a, int32_t b) {
    if (a == b) return a;
    if (a > b) std::swap(a, b);
    parent_[b] = a;
    extend(a, area_[b], open_[b] != 0);
    return a;
  }

  // `open` marks a component that must stay whatever its size.
  bool removable(int32_t root, int64_t limit) const { return area_[root] <= limit && open_[root] == 0; }

 private:
  std::vector<int32_t> parent_;
  std::vector<int64_t> area_;
  std::vector<uint8_t> open_;
};

// The runs of a row's ones, or of its zeros.
void appendRuns(const BitPlane& rows, int64_t y, bool ofZeros, std::vector<Run>& out) {
  const uint64_t* line = rows.line(y);
  const uint64_t flip = ofZeros ? ~uint64_t{0} : 0;
  uint64_t before = 0;
  bool inside = false;
  for (int64_t k = 0; k < rows.words; ++k) {
    uint64_t word = line[k] ^ flip;
    if (k == rows.words - 1) word &= rows.tailMask();
    for (uint64_t changes = word ^ (word << 1 | before); changes != 0; changes &= changes - 1) {
      const auto at = static_cast<int32_t>(64 * k + trailingZeros(changes));
      if (inside)
        out.back().end = at;
      else
        out.push_back({at, static_cast<int32_t>(rows.length), 0});
      inside = !inside;
    }
    before = word >> 63;
  }
}

// Flips every component of ones (or zeros) of at most `limit` pixels. `reach` is 1 where diagonal
// neighbours connect. Where `bordersStay`, components at the border of the image are left alone.
void flipSmall(BitPlane& rows, bool ofZeros, int64_t limit, int32_t reach, bool bordersStay) {
  std::vector<Run> runs;
  std::vector<size_t> start(rows.lines + 1, 0);
  Components components;
  for (int64_t y = 0; y < rows.lines; ++y) {
    appendRuns(rows, y, ofZeros, runs);
    start[y + 1] = runs.size();
    const bool edgeRow = y == 0 || y == rows.lines - 1;
    size_t above = y > 0 ? start[y - 1] : 0;
    const size_t aboveEnd = start[y];
    for (size_t i = start[y]; i < runs.size(); ++i) {
      Run& run = runs[i];
      const bool open = bordersStay &&
                        (edgeRow || run.begin == 0 || run.end == static_cast<int32_t>(rows.length));
      while (above < aboveEnd && runs[above].end + reach <= run.begin) ++above;
      int32_t label = -1;
      for (size_t k = above; k < aboveEnd && runs[k].begin < run.end + reach; ++k) {
        const int32_t other = components.root(runs[k].label);
        label = label < 0 ? other : components.join(label, other);
      }
      if (label < 0)
        label = components.add(run.end - run.begin, open);
      else
        components.extend(label, run.end - run.begin, open);
      run.label = label;
    }
  }
  for (int64_t y = 0; y < rows.lines; ++y) {
    for (size_t i = start[y]; i < start[y + 1]; ++i) {
      if (!components.removable(components.root(runs[i].label), limit)) continue;
      if (ofZeros)
        setBits(rows.line(y), runs[i].begin, runs[i].end);
      else
        clearBits(rows.line(y), runs[i].begin, runs[i].end);
    }
  }
}

}  // namespace

void cleanMask(BitPlane& rows, int64_t minArea, int64_t maxHole) {
  if (minArea > 1) flipSmall(rows, false, minArea - 1, 1, false);
  if (maxHole > 0) flipSmall(rows, true, maxHole, 0, true);
}

}  // namespace omni
