// Fuzz target: the warping kernels on any size, row distance, box and content, with points, guesses and
// matches that may be far away, infinite or no numbers. Whatever comes, they return or throw
// std::invalid_argument; frames are heap blocks of exactly the stated size, so that the sanitizer sees any
// over-read.
//
// Input: height, width, row padding, levels, count, cell, four bytes of box, four of scale, then a stream
// that is read round and round for pixels and numbers.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "omni/flow_motion.h"
#include "omni/flow_track.h"

namespace {

constexpr size_t kHead = 14;

class Stream {
 public:
  Stream(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t byte() {
    const uint8_t v = static_cast<uint8_t>(data_[at_ % size_] + 31 * (at_ / size_));
    ++at_;
    return v;
  }

  // Mostly a position near a frame, at times anything a double can be.
  double number() {
    const uint8_t kind = byte();
    const double small = (byte() - 64) + byte() / 256.0;
    switch (kind) {
      case 0: return std::numeric_limits<double>::quiet_NaN();
      case 1: return std::numeric_limits<double>::infinity();
      case 2: return -std::numeric_limits<double>::infinity();
      case 3: return small * 1e300;
      case 4: return small * 1e-300;
      case 5: return small * 1e9;
      default: return small;
    }
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

struct Frame {
  Frame(Stream& stream, int64_t h, int64_t w, int64_t padding)
      : height(h), width(w), stride(w + padding), pixels(stride * (h - 1) + w) {
    for (uint8_t& p : pixels) p = stream.byte();
  }
  omni::LumaView view() const { return {pixels.data(), height, width, stride}; }

  int64_t height, width;
  ptrdiff_t stride;
  std::vector<uint8_t> pixels;
};

// Everything that one step of warping does.
void warp(const uint8_t* head, Stream& stream) {
  const int64_t height = head[0] % 80 + 1, width = head[1] % 80 + 1, padding = head[2] % 40;
  const Frame before(stream, height, width, padding), after(stream, height, width, padding / 2);
  Frame mask(stream, height, width, 0);
  if (head[10] & 1)
    for (uint8_t& p : mask.pixels) p = p > head[11];
  // Boxes are valid for most inputs, and else must be refused.
  const omni::FlowBox box{head[6] % (width + 1) - (head[6] == 255), head[7] % (height + 1),
                          head[8] % (width + 2), head[9] % (height + 2)};
  const auto points = omni::selectPoints(before.view(), mask.view(), box, head[4] % 64);
  for (const omni::FlowPoint& p : points)
    if (!(p.x >= box.x0 && p.x < box.x1 && p.y >= box.y0 && p.y < box.y1)) std::abort();
  std::vector<omni::FlowPoint> starts = points, guesses;
  for (int i = 0; i < head[11] % 8; ++i) starts.push_back({stream.number(), stream.number()});
  for (size_t i = 0; i < starts.size(); ++i)
    guesses.push_back(head[12] & 1 ? omni::FlowPoint{stream.number(), stream.number()}
                                   : omni::FlowPoint{0, 0});
  const auto tracks = omni::trackPoints(before.view(), after.view(), mask.view(), box, starts, guesses,
                                        head[3] % 10, 8);
  std::vector<omni::Match> matches;
  for (size_t i = 0; i < tracks.size(); ++i) {
    const omni::FlowTrack& t = tracks[i];
    if (std::isfinite(t.backward) && !(std::isfinite(t.x) && std::isfinite(t.y))) std::abort();
    const double all = omni::believe(t).all;
    if (std::isfinite(t.backward) && !(all >= 0.0 && all <= 1.0)) std::abort();
    matches.push_back({starts[i], {t.x, t.y}, t.xx, t.xy, t.yy, i % 5 ? 1.0 : stream.number()});
  }
  for (int i = 0; i < head[12] % 6; ++i)
    matches.push_back({{stream.number(), stream.number()},
                       {stream.number(), stream.number()},
                       stream.number(),
                       stream.number(),
                       stream.number(),
                       stream.number()});
  const double radius = head[13] == 0 ? stream.number() : head[13];
  const omni::Motion motion = omni::fitMotion(matches, {1, 0, 0, 0, 1, 0}, radius);
  if (motion.weights.size() != matches.size()) std::abort();
  const auto residuals = omni::smoothResiduals(matches, motion, radius, starts, true);
  if (residuals.size() != starts.size()) std::abort();
  const omni::FlowBox reached = omni::reachedBox(box, motion.affine, residuals, height, width);
  if (reached.x0 < 0 || reached.y0 < 0 || reached.x1 > width || reached.y1 > height) std::abort();
  const omni::FlowBox around = omni::maskBox(mask.view());
  if (around.x0 < 0 || around.y0 < 0 || around.x1 > width || around.y1 > height) std::abort();
  omni::checkFlowBox(box, height, width);
  const omni::BackwardMap map = omni::backwardMap(matches, motion, radius, box, head[5] % 66);
  std::vector<uint8_t> warped = omni::warpMask(mask.view(), map);
  if (static_cast<int64_t>(warped.size()) != (box.x1 - box.x0) * (box.y1 - box.y0)) std::abort();
  omni::removeHidden(before.view(), after.view(), map, warped);
  for (const uint8_t p : warped)
    if (p > 1) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size <= kHead) return 0;
  Stream stream(data + kHead, size - kHead);
  try {
    warp(data, stream);
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
