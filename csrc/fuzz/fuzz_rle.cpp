// Fuzz target: RLE text from outside. Whatever the bytes, parsing ends in runs that fit the size or in
// std::invalid_argument; what was accepted must survive every operation and a round trip.
//
// Input: two bytes of size (1..256 each), then the text.
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "omni/mask_rle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int64_t height = data[0] + 1, width = data[1] + 1;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  omni::Runs runs;
  try {
    runs = omni::parseRle(text, height, width);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  const omni::BitPlane columns = omni::columnsFromRuns(runs, height, width);
  const std::string canonical = omni::encodeRle(columns);
  const omni::Runs again = omni::parseRle(canonical, height, width);
  const omni::PixelBox box = omni::runsBox(runs, height);
  const bool sound = omni::runsArea(runs) == omni::runsArea(again) &&
                     omni::runsIntersection(runs, again) == omni::runsArea(runs) &&
                     omni::formatRle(omni::runsUnion(runs, runs)) == canonical &&
                     omni::runsIou({runs}, {again}, height)[0] == 1.0 && box.x1 <= width &&
                     box.y1 <= height && omni::columnsFromRuns(again, height, width).bits == columns.bits;
  if (!sound) std::abort();
  return 0;
}
