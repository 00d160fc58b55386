#include "omni/mask_rle.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "omni/multiversion.h"

namespace omni {
namespace {

constexpr int kMaxGroups = 7;  // 35 bits: more than any run of a mask of kMaxMaskPixels needs

constexpr int64_t kBatch = 256;  // runs printed together, an even number
constexpr int64_t kHistory = 3;  // ends before a run that its text depends on
constexpr int64_t kSlice = 64;   // words whose changes are written together
constexpr int64_t kPiece = 512;  // words of a line looked at together
constexpr int64_t kEager = 4;    // changes of a word written before their number is looked at
// Room for a slice's changes, what is left of the one before, and one more.
constexpr int64_t kMaxEnds = 64 * kSlice + kEager + 2;

// What each of n <= kBatch runs becomes, given where they end (`ends[-3]` on): the run minus the run two
// before, as up to four characters, low byte first, and their number. Then runs are joined in pairs, which
// take up to eight characters. False where a run needs more than four.
OMNI_MULTIVERSION bool printShort(const int32_t* ends, int64_t n, uint64_t* pairs, uint64_t* lengths) {
  uint32_t characters[kBatch], counts[kBatch];
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t x = ends[i] - ends[i - 1] - ends[i - 2] + ends[i - 3];
    const int32_t magnitude = x ^ (x >> 31);  // x, or ~x where negative
    largest |= magnitude;
    const auto bits = static_cast<uint32_t>(x);
    const uint32_t groups = (bits & 0x1f) | (bits & 0x3e0) << 3 | (bits & 0x7c00) << 6 |
                            (bits & 0xf8000) << 9;
    const uint32_t two = magnitude > 15, three = magnitude > 511, four = magnitude > 16383;
    characters[i] = (groups | two << 5 | three << 13 | four << 21) + 0x30303030u;
    counts[i] = 1 + two + three + four;
    // beyond its number of characters a run must leave room for its neighbour's
    characters[i] &= 0xffffffffu >> (32 - 8 * counts[i]);
  }
  for (int64_t i = 0; i < n / 2; ++i) {
    uint64_t both, count;
    std::memcpy(&both, characters + 2 * i, sizeof both);
    std::memcpy(&count, counts + 2 * i, sizeof count);
    const uint64_t first = count & 0xffffffff;
    pairs[i] = (both & 0xffffffff) | (both >> 32) << (8 * first);
    lengths[i] = first + (count >> 32);
  }
  return largest < 1 << 19;
}

// Writes runs, given by where they end, as COCO's text.
class RunPrinter {
 public:
  // Where the next ends go: room for kMaxEnds less what waits.
  int32_t* next() { return ends_ + kHistory + waiting_; }

  // `n` ends have been written to next().
  void add(int64_t n) {
    if (n == 0) return;
    if (first_) {
      // Ends that make the rule hold for the first three runs, which are written as they are.
      ends_[0] = 2 * ends_[kHistory];
      ends_[1] = ends_[2] = ends_[kHistory];
      first_ = false;
    }
    n += waiting_;
    waiting_ = n % 2;
    n -= waiting_;
    for (int64_t i = 0; i < n; i += kBatch) printBatch(ends_ + kHistory + i, std::min(n - i, kBatch));
    std::copy(ends_ + n, ends_ + n + kHistory + waiting_, ends_);
  }

  std::string finish() {
    reserve(1);
    if (waiting_ != 0) printLong(ends_ + kHistory);
    text_.resize(used_);
    return std::move(text_);
  }

 private:
  void printBatch(const int32_t* ends, int64_t n) {
    reserve(n);
    uint64_t pairs[kBatch / 2], lengths[kBatch / 2];
    if (printShort(ends, n, pairs, lengths)) {
      char* out = text_.data() + used_;
      for (int64_t i = 0; i < n / 2; ++i) {
        std::memcpy(out, pairs + i, sizeof pairs[i]);
        out += lengths[i];
      }
      used_ = static_cast<size_t>(out - text_.data());
    } else {
      for (int64_t i = 0; i < n; ++i) printLong(ends + i);
    }
  }

  void printLong(const int32_t* end) {
    int32_t x = end[0] - end[-1] - end[-2] + end[-3];
    for (bool more = true; more;) {
      const int group = x & 0x1f;
      x >>= 5;
      more = (group & 0x10) ? x != -1 : x != 0;
      text_[used_++] = static_cast<char>((group | (more ? 0x20 : 0)) + 48);
    }
  }

  void reserve(int64_t runs) {
    const size_t needed = used_ + static_cast<size_t>((runs + 1) * kMaxGroups);
    if (needed > text_.size()) text_.resize(2 * needed);
  }

  std::string text_;
  size_t used_ = 0;
  int64_t waiting_ = 0;  // ends, 0 or 1, whose partner is to come
  bool first_ = true;
  int32_t ends_[kHistory + kMaxEnds] = {};
};

// Words in which pixels differ from the one before, and where these words begin. Whether a word of a noisy
// mask has changes no machine can predict: all are written, those without are overwritten.
class ChangedWords {
 public:
  // `n` words of a line; `before` is the pixel before them, `tailMask` the bits of the last word that count.
  void add(const uint64_t* words, int64_t n, uint64_t before, uint64_t tailMask, int32_t place) {
    for (int64_t k = 0; k < n; ++k, place += 64) {
      uint64_t changes = words[k] ^ (words[k] << 1 | before);
      if (k == n - 1) changes &= tailMask;
      before = words[k] >> 63;
      changes_[count_] = changes;
      places_[count_] = place;
      count_ += changes != 0;
    }
  }

  bool full() const { return count_ > kPiece; }

  void print(RunPrinter& printer) {
    for (int64_t i = 0; i < count_; i += kSlice)
      printer.add(expand(changes_ + i, places_ + i, std::min(count_ - i, kSlice), printer.next()));
    count_ = 0;
  }

 private:
  // Writes where the pixels are; at most 64 n + kEager values. How many a word has is not looked at before
  // the first kEager are written.
  OMNI_MULTIVERSION static int64_t expand(const uint64_t* words, const int32_t* places, int64_t n,
                                          int32_t* out) {
    const int32_t* const begin = out;
    for (int64_t k = 0; k < n; ++k) {
      uint64_t changes = words[k];
      int32_t* const end = out + __builtin_popcountll(changes);
      // The sentinel only keeps trailingZeros defined; what lies beyond `end` is overwritten.
      constexpr uint64_t kSentinel = uint64_t{1} << 63;
      for (int i = 0; i < kEager; ++i, changes &= changes - 1)
        out[i] = places[k] + trailingZeros(changes | kSentinel);
      for (out += kEager; out < end; changes &= changes - 1) *out++ = places[k] + trailingZeros(changes);
      out = end;
    }
    return out - begin;
  }

  uint64_t changes_[2 * kPiece + 1];
  int32_t places_[2 * kPiece + 1];
  int64_t count_ = 0;
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
  ChangedWords changed;
  uint64_t before = 0;
  for (int64_t x = 0; x < columns.lines; ++x) {
    const uint64_t* line = columns.line(x);
    for (int64_t k = 0; k < columns.words; k += kPiece) {
      const int64_t n = std::min(kPiece, columns.words - k);
      const uint64_t counts = k + n == columns.words ? columns.tailMask() : ~uint64_t{0};
      changed.add(line + k, n, k == 0 ? before : line[k - 1] >> 63, counts,
                  static_cast<int32_t>(x * columns.length + 64 * k));
      if (changed.full()) changed.print(printer);
    }
    // the last pixel of a line is the highest bit that is not padding
    before = (line[columns.words - 1] & (columns.tailMask() ^ columns.tailMask() >> 1)) != 0;
  }
  changed.print(printer);
  *printer.next() = static_cast<int32_t>(columns.lines * columns.length);
  printer.add(1);
  return printer.finish();
}

std::string formatRle(const Runs& runs) {
  RunPrinter printer;
  int32_t end = 0;
  for (size_t i = 0; i < runs.size();) {
    const size_t n = std::min(runs.size() - i, static_cast<size_t>(kBatch));
    int32_t* ends = printer.next();
    for (size_t k = 0; k < n; ++k) ends[k] = end += runs[i++];
    printer.add(static_cast<int64_t>(n));
  }
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
    if (total > pixels) malformed("runs exceed the " + std::to_string(pixels) + " pixels of the mask");
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

std::vector<double> runsIou(const std::vector<Runs>& a, const std::vector<Runs>& b, int64_t height) {
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
      const int64_t common = disjoint(sa[i].box, sb[j].box) ? 0 : runsIntersection(a[i], b[j]);
      const int64_t either = sa[i].area + sb[j].area - common;
      iou[i * b.size() + j] = either == 0 ? 1.0 : static_cast<double>(common) / static_cast<double>(either);
    }
  }
  return iou;
}

double maskIou(const MaskView& a, const MaskView& b) {
  if (a.height != b.height || a.width != b.width) throw std::invalid_argument("masks differ in size");
  BitPlane common = packRows(a);
  const BitPlane other = packRows(b);
  const auto n = static_cast<int64_t>(common.bits.size());
  const int64_t areas = popcount(common.bits.data(), n) + popcount(other.bits.data(), n);
  for (int64_t i = 0; i < n; ++i) common.bits[i] &= other.bits[i];
  const int64_t both = popcount(common.bits.data(), n);
  return areas == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(areas - both);
}

}  // namespace omni
