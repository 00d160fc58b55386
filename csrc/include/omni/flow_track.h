// Points of an object: where to put them, and where they are in the next frame.
#pragma once

#include <cstdint>
#include <vector>

#include "omni/flow_image.h"

namespace omni {

struct FlowPoint {
  double x, y;  // pixels of the frame; pixel centres are whole numbers
};

// Note [Points]
// The mask's box is cut into square cells so that about `count` of them are covered; each cell gives its
// best pixel inside the mask: the one with the largest det / trace of the structure tensor (central
// differences, 9 x 9 pixels, those outside the mask grown by one left out: the contour counts, the
// background's texture does not). At most kCandidates^2 pixels of a cell are looked at, so the cost does not
// grow with the object. A cell without any gradient gives none.
constexpr int64_t kCandidates = 6;

// Points in the order of cells, row by row. `mask` and `luma` have one size; `box` is the mask's.
std::vector<FlowPoint> selectPoints(const LumaView& luma, const LumaView& mask, const FlowBox& box,
                                    int64_t count);

// Where a point went.
struct FlowTrack {
  double x, y;        // in the next frame
  double backward;    // pixels between the start and where tracking back ends, as far as the window can
                      // tell (not along an edge); infinity: left the crop
  double residual;    // mean absolute difference of the window's pixels, in grey values
  double contrast;    // mean absolute deviation of the window's pixels from their mean, in grey values
  double xx, xy, yy;  // structure tensor of the window, mean over its pixels, (grey value / pixel)^2
};

// Note [Tracking]
// Pyramidal inverse-compositional Lucas-Kanade (Baker and Matthews 2004; coarse to fine as Bouguet 2000),
// translation only, on windows of kWindow x kWindow pixels. Pixels outside the object's mask (grown by one
// pixel at each level) have weight 0, so the background does not pull; the normal equations are damped by
// a gradient noise of kNoise, so that along an edge, where motion is not seen, the estimate stays at its
// start. A step ends the iteration where it is short, weighted by the damped tensor. Sampling and sums are in integers (positions in 1/128 pixel, values in 1/16, gradients in 1/16 per
// pixel), so that any order of summation gives the same bits; the 2 x 2 systems are in double.
constexpr int kWindow = 16;
constexpr double kNoise = 1.0;  // grey values per pixel

// Follows points from `before` to `after`, both cropped to `box`.
// `mask` is the object in `before`; `guesses` are displacements to start from.
std::vector<FlowTrack> trackPoints(const LumaView& before, const LumaView& after, const LumaView& mask,
                                   const FlowBox& box, const std::vector<FlowPoint>& points,
                                   const std::vector<FlowPoint>& guesses, int levels, int iterations);

// How far a track is to be believed.
struct Belief {
  double all;         // in [0, 1]: whether tracking back returns, and the pixels fit
  double xx, xy, yy;  // by direction: symmetric, eigenvalues in [0, 1); 0 along an edge
};

// 1 / (1 + (backward / kBackwardScale)^2) / (1 + (residual / (kGreyNoise + contrast / 2))^4), and the structure
// tensor over its larger eigenvalue and kTextureNoise.
constexpr double kBackwardScale = 0.7;  // pixels
constexpr double kGreyNoise = 3.0;
constexpr double kTextureNoise = 4.0;  // (grey values per pixel)^2
constexpr double kLost = 0.05;         // a point is given up where its belief falls below
Belief believe(const FlowTrack& track);

}  // namespace omni
