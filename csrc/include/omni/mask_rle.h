// Run-length masks in COCO's compressed form, byte-identical to pycocotools.
//
// Runs alternate background, foreground, ... over the pixels in column-major order and start with a
// (possibly empty) background run. The text holds each run minus the run two places before it (from
// the fourth on), in groups of five bits, low group first, 0x20 marking that more follow, as
// characters 48..111. Format: pycocotools' common/maskApi.c, rleToString and rleFrString.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "omni/bit_plane.h"

namespace omni {

using Runs = std::vector<int32_t>;  // never negative; at most kMaxMaskPixels in all

// Half-open pixel box: x0 <= x < x1, y0 <= y < y1. All zero for an empty mask.
struct PixelBox {
  int64_t x0, y0, x1, y1;
};

std::string encodeRle(const BitPlane& columns);

// Throws std::invalid_argument unless the text is well formed and its runs, none of them negative,
// add up to height * width. Allocates in proportion to the text only.
Runs parseRle(std::string_view text, int64_t height, int64_t width);

// Runs of a mask of height x width (as parseRle returned them) -> its columns.
BitPlane columnsFromRuns(const Runs& runs, int64_t height, int64_t width);

int64_t runsArea(const Runs& runs);
PixelBox runsBox(const Runs& runs, int64_t height);
// Pixels in both of two masks of one size.
int64_t runsIntersection(const Runs& a, const Runs& b);
// Union of two masks of one size, as runs without empty ones (but, where needed, the first).
Runs runsUnion(const Runs& a, const Runs& b);
std::string formatRle(const Runs& runs);

// (a.size(), b.size()) matrix, row-major. Two empty masks count as equal: 1.
std::vector<double> runsIou(const std::vector<Runs>& a, const std::vector<Runs>& b, int64_t height);

// Intersection over union of two byte masks; 1 where both are empty. Throws std::invalid_argument
// where the sizes differ.
double maskIou(const MaskView& a, const MaskView& b);

}  // namespace omni
