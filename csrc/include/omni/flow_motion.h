// From point tracks to the motion of an object: a robust affine part and a smooth residual.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "omni/flow_track.h"

namespace omni {

// current = (a x + b y + tx, c x + d y + ty) for (x, y) of the anchor.
struct Affine {
  double a, b, tx, c, d, ty;

  FlowPoint operator()(const FlowPoint& p) const { return {a * p.x + b * p.y + tx, c * p.x + d * p.y + ty}; }
};

// A point of the anchor, where it is now, and how far that is to be believed.
struct Match {
  FlowPoint anchor;
  FlowPoint current;
  double xx, xy, yy;  // belief by direction: symmetric, eigenvalues in [0, 1]; 0 along an edge
  double weight;      // belief at all, in [0, 1]
};

struct Motion {
  Affine affine;
  std::vector<double> weights;  // of each match: its weight times its agreement with its neighbours
};

// Note [Motion]
// The affine minimises sum w r'Wr rho(r'Wr) plus a small pull to `prior`: the linear part where the points
// say nothing of it (one line, one edge direction), the translation less. rho is Geman and McClure's,
// its scale lowered from the largest residual to kAffineScale + 0.02 times the points' spread in kRounds
// rounds (graduated non-convexity, Blake and Zisserman 1987): no start by chance, and half of the points
// may be wrong.
//
// What the affine leaves is no error where the object bends. A match is believed as far as its neighbours
// within `radius` pixels leave the same, up to kStrain pixels per pixel of distance: a limb moves on its own
// but as one, a lost point moves alone.
constexpr int kRounds = 10;
constexpr double kAffineScale = 0.5;
constexpr double kStrain = 0.25;

Motion fitMotion(const std::vector<Match>& matches, const Affine& prior, double radius);

// What the affine leaves at each place, from the matches within `radius`: a moving least-squares affine
// (Schaefer et al. 2006), pulled to none where the matches say little. Weights fall with the distance d as
// (1 - d^2 / radius^2)^2 / (1 + (3 d / radius)^2)^2. `byAnchor`: places are of the anchor, else of now.
std::vector<FlowPoint> smoothResiduals(const std::vector<Match>& matches, const Motion& motion, double radius,
                                       const std::vector<FlowPoint>& places, bool byAnchor);

// The part of a frame of height x width pixels that the anchor's box may have come to; empty (x0 >= x1 or
// y0 >= y1) where that is none.
FlowBox reachedBox(const FlowBox& box, const Affine& affine, const std::vector<FlowPoint>& residuals,
                   int64_t height, int64_t width);

// Backward map on a coarse grid: node (i, j) at (box.x0 + cell j, box.y0 + cell i) of the current frame
// came from position [i * columns + j] of the anchor. Bilinear in between.
struct BackwardMap {
  FlowBox box;
  int64_t cell, rows, columns;
  std::vector<FlowPoint> nodes;
};

// Throws std::invalid_argument where the affine cannot be inverted, or the cell is not in [1, 64].
BackwardMap backwardMap(const std::vector<Match>& matches, const Motion& motion, double radius,
                        const FlowBox& box, int64_t cell);

// The anchor's mask seen through the map: box height x width bytes of 0 or 1. Positions are in 1/256 pixel
// and interpolated in integers; the mask is interpolated bilinearly, 0 outside, and at least one half is
// foreground.
std::vector<uint8_t> warpMask(const LumaView& mask, const BackwardMap& map);

// Note [Hidden parts]
// Where the object is hidden, the current frame does not show what the anchor shows. Pixels of `warped` (of
// warpMask) are cleared in blocks of 4 x 4 where, over the object's pixels in the 3 x 3 blocks around, the mean
// absolute difference of the two frames exceeds kHiddenNoise grey values plus 0.8 standard deviations of the
// anchor's pixels: a texture that is shifted by a pixel or two stays, another texture does not. Positions are
// rounded to whole pixels; all sums are of integers.
constexpr int64_t kHiddenBlock = 4;
constexpr int64_t kHiddenNoise = 12;
void removeHidden(const LumaView& anchor, const LumaView& current, const BackwardMap& map,
                  std::vector<uint8_t>& warped);

}  // namespace omni
