// Fuzz target: the resize on any size, row distance and content, against the plain sums that define it.
// Source and target are heap blocks of exactly the stated size, so that the sanitizer sees any over-read.
//
// Input: height, width, new height, new width, row padding and filter (a byte each), then pixels.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "omni/resize.h"

namespace {

using Bytes = std::vector<uint8_t>;

// One axis of an image whose samples lie `step` bytes apart, `other` runs of them `run` bytes apart.
Bytes plain(const Bytes& in, size_t lines, size_t length, size_t wanted, bool across, omni::Filter filter) {
  if (length == wanted) return in;
  const omni::AxisWeights w = omni::axis_weights(static_cast<int64_t>(length), static_cast<int64_t>(wanted),
                                                 filter);
  Bytes out(lines * wanted * 3);
  for (size_t line = 0; line < lines; ++line)
    for (size_t i = 0; i < wanted; ++i)
      for (size_t c = 0; c < 3; ++c) {
        int32_t sum = (1 << w.precision) >> 1;
        for (size_t j = 0; j < static_cast<size_t>(w.counts[i]); ++j) {
          const size_t at = static_cast<size_t>(w.starts[i]) + j;
          const size_t from = across ? line * length + at : at * lines + line;
          sum += w.values[i * static_cast<size_t>(w.stride) + j] * in[from * 3 + c];
        }
        const size_t to = across ? line * wanted + i : i * lines + line;
        out[to * 3 + c] = static_cast<uint8_t>(std::clamp(sum >> w.precision, 0, 255));
      }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 7) return 0;
  const size_t height = data[0] % 96 + 1, width = data[1] % 96 + 1;
  const size_t new_height = data[2] % 128 + 1, new_width = data[3] % 128 + 1;
  const size_t stride = width * 3 + data[4] % 48;
  const omni::Filter filter = data[5] & 1 ? omni::Filter::bicubic : omni::Filter::bilinear;
  const uint8_t* pixels = data + 6;
  Bytes source((height - 1) * stride + width * 3), packed(height * width * 3);
  for (size_t i = 0; i < source.size(); ++i)
    source[i] = static_cast<uint8_t>(pixels[i % (size - 6)] + i / (size - 6) * 37);
  for (size_t y = 0; y < height; ++y)
    std::copy_n(source.begin() + static_cast<ptrdiff_t>(y * stride), width * 3,
                packed.begin() + static_cast<ptrdiff_t>(y * width * 3));
  Bytes target(new_height * new_width * 3);
  const auto side = [](size_t v) { return static_cast<int64_t>(v); };
  omni::Resizer resizer({side(height), side(width)}, {side(new_height), side(new_width)}, filter);
  for (int round = 0; round < 2; ++round) {  // the scratch is used again
    resizer(source.data(), side(stride), target.data());
    const Bytes narrow = plain(packed, height, width, new_width, true, filter);
    if (target != plain(narrow, new_width, height, new_height, false, filter)) std::abort();
  }
  if (height % 2 || width % 2) return 0;
  // The same bytes as 4:2:0 or 4:2:2 planes: in one pass, or converted first.
  const int64_t chroma_rows = data[5] & 4 ? 1 : 2;
  const std::int32_t inverse[4] = {117489, 138438, 13975, 34925};
  const Bytes luma(source.begin(), source.begin() + static_cast<ptrdiff_t>(height * width));
  const Bytes chroma(source.begin(),
                     source.begin() + static_cast<ptrdiff_t>(height * width / 2) / chroma_rows);
  const omni::YuvImage image{
      luma.data(),     chroma.data(),   chroma.data(), side(width),
      side(width / 2), side(width / 2), chroma_rows,   omni::yuv_coefficients(inverse, data[5] & 2)};
  for (size_t y = 0; y < height; ++y) image.row_to_rgb(side(y), side(width), packed.data() + y * width * 3);
  Bytes direct(target.size());
  resizer(image, direct.data());
  resizer(packed.data(), side(width * 3), target.data());
  if (direct != target) std::abort();
  return 0;
}
