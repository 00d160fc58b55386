#include "omni/mask_rle.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "omni/multiversion.h"

namespace omni {
namespace {

constexpr int kMaxGroups = 7;  // 35 bits: more than any run of a mask of kMaxMaskPixels needs

constexpr int64_t kBatch = 256;  // runs printed together

// What each of n <= kBatch runs becomes: `runs` minus the runs two before (`runs[-2]` on), as up to four
// characters, low byte first, and their number. False where one needs more than four.
OMNI_MULTIVERSION bool printShort(const int32_t* runs, int64_t n, uint32_t* characters,
                                  int32_t* lengths) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t x = runs[i] - runs[i - 2];
    const int32_t magnitude = x ^ (x >> 31);  // x, or ~x where negative
    largest |= magnitude;
    const auto bits = static_cast<uint32_t>(x);
    const uint32_t groups = (bits & 0x1f) | (bits & 0x3e0) << 3 | (bits & 0x7c00) << 6 |
                            (bits & 0xf8000) << 9;
    const uint32_t more = (magnitude > 15 ? 0x20u : 0) | (magnitude > 511 ? 0x2000u : 0) |
                          (magnitude > 16383 ? 0x200000u : 0);
    characters[i] = (groups | more) + 0x30303030u;
    lengths[i] = 1 + (magnitude > 15) + (magnitude > 511) + (magnitude > 16383);
  }
  return largest < 1 << 19;
}

// Writes runs as COCO's text.
class RunPrinter {
 public:
  void print(const int32_t* runs, int64_t n) {
    if (first_ && n > 0) {
      reserve(1);
      printLong(*runs++);  // and nothing is stored minus the first run: its place holds a zero
      --n;
      first_ = false;
    }
    for (; n > 0; n -= kBatch, runs += kBatch) printBatch(runs, std::min(n, kBatch));
  }

  std::string finish() {
    text_.resize(used_);
    return std::move(text_);
  }

 private:
  void printBatch(const int32_t* runs, int64_t n) {
    int32_t* const batch = history_ + 2;
    std::copy_n(runs, n, batch);
    reserve(n);
    uint32_t characters[kBatch];
    int32_t lengths[kBatch];
    if (printShort(batch, n, characters, lengths)) {
      char* out = text_.data() + used_;
      for (int64_t i = 0; i < n; ++i) {
        std::memcpy(out, characters + i, sizeof characters[i]);
        out += lengths[i];
      }
      used_ = static_cast<size_t>(out - text_.data());
    } else {
      for (int64_t i = 0; i < n; ++i) printLong(batch[i] - batch[i - 2]);
    }
    history_[0] = batch[n - 2];
    history_[1] = batch[n - 1];
  }

  void printLong(int32_t x) {
    for (bool more = true; more;) {
      const int group = x & 0x1f;
      x >>= 5;
      more = (group & 0x10) ? x != -1 : x != 0;
      text_[used_++] = static_cast<char>((group | (more ? 0x20 : 0)) + 48);
    }
  }

  void reserve(int64_t runs) {
    const size_t needed = used_ + static_cast<size_t>(runs * kMaxGroups);
    if (needed > text_.size()) text_.resize(2 * needed);
  }

  std::string text_;
  size_t used_ = 0;
  bool first_ = true;
  int32_t history_[kBatch + 2] = {0, 0};  // the last two runs, then a batch
};

constexpr int kGroup = 4;  // words looked at together
constexpr int kEager = 2;  // changes of a word written before their number is looked at

// Writes where pixels of a line differ from the one before (`before` for the first, then updated to
// the line's last pixel), counted from `origin`, and returns how many do. `scratch` holds the line's
// words, rounded up to whole groups; `out` has room for the line's length + kEager.
//
// Whether a word of a noisy mask has changes, and how many, no machine can predict: a group of words
// is skipped where none has any, else the first kEager of each word are written unseen.
OMNI_MULTIVERSION int64_t findChanges(const uint64_t* line, int64_t words, uint64_t tailMask,
                                      uint64_t* before, uint64_t* scratch, int32_t origin,
                                      int32_t* out) {
  const int32_t* const begin = out;
  scratch[0] = line[0] ^ (line[0] << 1 | *before);
  for (int64_t k = 1; k < words; ++k) scratch[k] = line[k] ^ (line[k] << 1 | line[k - 1] >> 63);
  scratch[words - 1] &= tailMask;
  for (int64_t k = words; k % kGroup != 0; ++k) scratch[k] = 0;
  // the last pixel of a line is the highest bit that is not padding
  *before = (line[words - 1] & (tailMask ^ tailMask >> 1)) != 0;
  for (int64_t group = 0; group < words; group += kGroup) {
    const uint64_t* from = scratch + group;
    if ((from[0] | from[1] | from[2] | from[3]) == 0) continue;
    for (int64_t k = 0; k < kGroup; ++k) {
      uint64_t changes = from[k];
      const auto base = static_cast<int32_t>(origin + 64 * (group + k));
      int32_t* const end = out + __builtin_popcountll(changes);
      // The sentinel only keeps trailingZeros defined; what lies beyond `end` is overwritten.
      constexpr uint64_t kSentinel = uint64_t{1} << 63;
      for (int i = 0; i < kEager; ++i, changes &= changes - 1)
        out[i] = base + trailingZeros(changes | kSentinel);
      for (out += kEager; out < end; changes &= changes - 1)
        *out++ = base + trailingZeros(changes);
      out = end;
    }
  }
  return out - begin;
}

[[noreturn]] void malformed(const std::string& what) {
  throw std::invalid_argument("malformed RLE counts: " + what);
}

// Walks the pixels of a mask run by run.
class RunCursor {
 public:
  explicit RunCursor(const Runs& runs) : runs_(runs) { settle(); }
  bool done() const { return next_ > runs_.size(); }
  bool foreground() const { return value_; }
  int32_t left() const { return left_; }
  void advance(int32_t n) {
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
  int32_t left_ = 0;
  bool value_ = false;
};

bool disjoint(const PixelBox& a, const PixelBox& b) {
  return a.x1 <= b.x0 || b.x1 <= a.x0 || a.y1 <= b.y0 || b.y1 <= a.y0;
}

}  // namespace

std::string encodeRle(const BitPlane& columns) {
  RunPrinter printer;
  std::vector<uint64_t> scratch(columns.words + kGroup);
  std::vector<int32_t> ends(kBatch + columns.length + kEager + 1);  // of runs, column-major
  int32_t last = 0;
  const auto flush = [&](int64_t n) {
    for (int64_t i = 0; i < n; ++i) ends[i] -= std::exchange(last, ends[i]);
    printer.print(ends.data(), n);
  };
  int64_t n = 0;
  uint64_t before = 0;
  for (int64_t x = 0; x < columns.lines; ++x) {
    n += findChanges(columns.line(x), columns.words, columns.tailMask(), &before, scratch.data(),
                     static_cast<int32_t>(x * columns.length), ends.data() + n);
    if (n < kBatch) continue;
    flush(n);
    n = 0;
  }
  ends[n++] = static_cast<int32_t>(columns.lines * columns.length);
  flush(n);
  return printer.finish();
}

std::string formatRle(const Runs& runs) {
  RunPrinter printer;
  printer.print(runs.data(), static_cast<int64_t>(runs.size()));
  return printer.finish();
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
    runs.push_back(static_cast<int32_t>(x));
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
    const int32_t n = std::min(ca.left(), cb.left());
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
  int32_t run = 0;
  for (RunCursor ca(a), cb(b); !ca.done() && !cb.done();) {
    const int32_t n = std::min(ca.left(), cb.left());
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
