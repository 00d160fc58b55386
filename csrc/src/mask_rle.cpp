#include "omni/mask_rle.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace omni {
namespace {

constexpr int kMaxGroups = 7;  // 35 bits: more than any run of a mask of kMaxMaskPixels needs

// Appends runs to COCO's text. Grows geometrically and writes through a pointer.
class RleWriter {
 public:
  RleWriter() { text_.resize(256); }

  void append(int64_t run) {
    int64_t x = index_ > 2 ? run - previous_[index_ & 1] : run;
    previous_[index_ & 1] = run;
    ++index_;
    if (used_ + kMaxGroups + 1 > text_.size()) text_.resize(2 * text_.size());
    char* out = text_.data() + used_;
    for (bool more = true; more;) {
      int group = static_cast<int>(x & 0x1f);
      x >>= 5;
      more = (group & 0x10) ? x != -1 : x != 0;
      *out++ = static_cast<char>((group | (more ? 0x20 : 0)) + 48);
    }
    used_ = static_cast<size_t>(out - text_.data());
  }

  std::string finish() {
    text_.resize(used_);
    return std::move(text_);
  }

 private:
  std::string text_;
  size_t used_ = 0;
  size_t index_ = 0;
  int64_t previous_[2] = {0, 0};
};

[[noreturn]] void malformed(const std::string& what) {
  throw std::invalid_argument("malformed RLE counts: " + what);
}

// Walks the pixels of a mask run by run.
class RunCursor {
 public:
  explicit RunCursor(const Runs& runs) : runs_(runs) { settle(); }
  bool done() const { return next_ > runs_.size(); }
  bool foreground() const { return value_; }
  uint32_t left() const { return left_; }
  void advance(uint32_t n) {
    left_ -= n;
    if (left_ == 0) settle();
  }

 private:
  void settle() {
    while (left_ == 0 && next_ < runs_.size()) {
      value_ = (next_ & 1) != 0;
      left_ = runs_[next_++];
    }
    if (left_ == 0) next_ = runs_.size() + 1;
  }

  const Runs& runs_;
  size_t next_ = 0;
  uint32_t left_ = 0;
  bool value_ = false;
};

bool disjoint(const PixelBox& a, const PixelBox& b) {
  return a.x1 <= b.x0 || b.x1 <= a.x0 || a.y1 <= b.y0 || b.y1 <= a.y0;
}

}  // namespace

std::string encodeRle(const BitPlane& columns) {
  RleWriter writer;
  const int64_t words = columns.words;
  const int tail = static_cast<int>(columns.length - 64 * (words - 1));
  const uint64_t tailMask = columns.tailMask();
  int64_t last = 0;      // where the current run began
  uint64_t before = 0;   // value of the pixel before the current word; background before the first
  int64_t position = 0;  // column-major index of the word's first pixel
  for (int64_t x = 0; x < columns.lines; ++x) {
    const uint64_t* line = columns.line(x);
    for (int64_t k = 0; k < words; ++k) {
      const bool isLast = k == words - 1;
      const uint64_t word = line[k];
      uint64_t changes = word ^ (word << 1 | before);
      if (isLast) changes &= tailMask;
      before = (word >> (isLast ? tail - 1 : 63)) & 1;
      for (; changes != 0; changes &= changes - 1) {
        const int64_t at = position + trailingZeros(changes);
        writer.append(at - last);
        last = at;
      }
      position += isLast ? tail : 64;
    }
  }
  writer.append(position - last);
  return writer.finish();
}

std::string formatRle(const Runs& runs) {
  RleWriter writer;
  for (uint32_t run : runs) writer.append(run);
  return writer.finish();
}

Runs parseRle(std::string_view text, int64_t height, int64_t width) {
  checkMaskSize(height, width);
  const int64_t pixels = height * width;
  // Bounds the work on empty runs, which add nothing to the total.
  if (static_cast<int64_t>(text.size()) > kMaxGroups * (pixels + 2))
    malformed("too long for a mask of " + std::to_string(pixels) + " pixels");
  Runs runs;
  runs.reserve(text.size() / 2 + 2);
  int64_t total = 0;
  for (size_t at = 0; at < text.size();) {
    int64_t x = 0;
    bool more = true;
    for (int shift = 0; more; shift += 5, ++at) {
      if (at == text.size()) malformed("the last run is cut off");
      if (shift == 5 * kMaxGroups) malformed("a run has more than 7 characters");
      const int group = static_cast<unsigned char>(text[at]) - 48;
      if (group < 0 || group > 63)
        malformed("byte " + std::to_string(group + 48) + " at offset " + std::to_string(at) +
                  " is outside 48..111");
      x |= static_cast<int64_t>(group & 0x1f) << shift;
      more = (group & 0x20) != 0;
      if (!more && (group & 0x10)) x -= int64_t{1} << (shift + 5);
    }
    if (runs.size() > 2) x += runs[runs.size() - 2];
    if (x < 0) malformed("run " + std::to_string(runs.size()) + " is negative");
    total += x;
    if (total > pixels)
      malformed("runs exceed the " + std::to_string(pixels) + " pixels of the mask");
    runs.push_back(static_cast<uint32_t>(x));
  }
  if (total != pixels)
    malformed("runs cover " + std::to_string(total) + " of " + std::to_string(pixels) + " pixels");
  return runs;
}

BitPlane columnsFromRuns(const Runs& runs, int64_t height, int64_t width) {
  BitPlane columns(width, height);
  int64_t x = 0, y = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const bool foreground = (i & 1) != 0;
    int64_t left = runs[i];
    if (!foreground) {
      y += left;
      if (y >= height) {
        x += y / height;
        y %= height;
      }
      continue;
    }
    while (left > 0) {
      const int64_t n = std::min(left, height - y);
      setBits(columns.line(x), y, y + n);
      left -= n;
      y += n;
      if (y == height) {
        y = 0;
        ++x;
      }
    }
  }
  return columns;
}

int64_t runsArea(const Runs& runs) {
  int64_t area = 0;
  for (size_t i = 1; i < runs.size(); i += 2) area += runs[i];
  return area;
}

PixelBox runsBox(const Runs& runs, int64_t height) {
  int64_t x0 = kMaxMaskPixels, y0 = kMaxMaskPixels, x1 = 0, y1 = 0, begin = 0;
  for (size_t i = 0; i < runs.size(); begin += runs[i++]) {
    if ((i & 1) == 0 || runs[i] == 0) continue;
    const int64_t end = begin + runs[i] - 1;  // last pixel of the run
    const int64_t first = begin / height, last = end / height;
    x0 = std::min(x0, first);
    x1 = last + 1;  // runs come in column order
    if (first != last) {
      y0 = 0;
      y1 = height;
    } else {
      y0 = std::min(y0, begin % height);
      y1 = std::max(y1, end % height + 1);
    }
  }
  if (x1 == 0) return {0, 0, 0, 0};
  return {x0, y0, x1, y1};
}

int64_t runsIntersection(const Runs& a, const Runs& b) {
  int64_t common = 0;
  for (RunCursor ca(a), cb(b); !ca.done() && !cb.done();) {
    const uint32_t n = std::min(ca.left(), cb.left());
    if (ca.foreground() && cb.foreground()) common += n;
    ca.advance(n);
    cb.advance(n);
  }
  return common;
}

Runs runsUnion(const Runs& a, const Runs& b) {
  Runs out;
  out.reserve(a.size() + b.size());
  bool value = false;
  uint32_t run = 0;
  for (RunCursor ca(a), cb(b); !ca.done() && !cb.done();) {
    const uint32_t n = std::min(ca.left(), cb.left());
    if ((ca.foreground() || cb.foreground()) != value) {
      out.push_back(run);
      run = 0;
      value = !value;
    }
    run += n;
    ca.advance(n);
    cb.advance(n);
  }
  out.push_back(run);
  return out;
}

std::vector<double> runsIou(const std::vector<Runs>& a, const std::vector<Runs>& b,
                            int64_t height) {
  struct Summary {
    int64_t area;
    PixelBox box;
  };
  const auto summarise = [height](const std::vector<Runs>& masks) {
    std::vector<Summary> out;
    out.reserve(masks.size());
    for (const Runs& runs : masks) out.push_back({runsArea(runs), runsBox(runs, height)});
    return out;
  };
  const std::vector<Summary> sa = summarise(a), sb = summarise(b);
  std::vector<double> iou(a.size() * b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      const int64_t common =
          disjoint(sa[i].box, sb[j].box) ? 0 : runsIntersection(a[i], b[j]);
      const int64_t either = sa[i].area + sb[j].area - common;
      iou[i * b.size() + j] =
          either == 0 ? 1.0 : static_cast<double>(common) / static_cast<double>(either);
    }
  }
  return iou;
}

double maskIou(const MaskView& a, const MaskView& b) {
  if (a.height != b.height || a.width != b.width)
    throw std::invalid_argument("masks differ in size");
  BitPlane common = packRows(a);
  const BitPlane other = packRows(b);
  const auto n = static_cast<int64_t>(common.bits.size());
  const int64_t areas = popcount(common.bits.data(), n) + popcount(other.bits.data(), n);
  for (int64_t i = 0; i < n; ++i) common.bits[i] &= other.bits[i];
  const int64_t both = popcount(common.bits.data(), n);
  return areas == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(areas - both);
}

}  // namespace omni
