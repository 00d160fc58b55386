// Boundaries of masks and what the F measure counts on them.
#pragma once

#include <cstdint>

#include "omni/bit_plane.h"

namespace omni {

// Boundary pixels of a mask by rows, by the rule of DAVIS: a pixel that differs from its right, lower
// or lower-right neighbour; the last row looks right only, the last column down only, and the last
// pixel is never one.
BitPlane boundaryRows(const BitPlane& rows);

struct BoundaryMatch {
  int64_t countA, countB;      // boundary pixels of each mask
  int64_t matchedA, matchedB;  // of those, the ones within the radius of the other's boundary
};

// Boundary pixels of `a` and `b` (masks by rows, one size) with one of the other's at a distance of at
// most `radius` pixels (dx^2 + dy^2 <= radius^2). Throws std::invalid_argument where the sizes differ
// or the radius is negative.
BoundaryMatch matchBoundaries(const BitPlane& a, const BitPlane& b, int64_t radius);

}  // namespace omni
