#include <pybind11/numpy.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings.h"
#include "omni/flow_motion.h"
#include "omni/flow_track.h"

namespace py = pybind11;

namespace omni::bindings {
namespace {

using ByteImage = py::array_t<uint8_t>;  // (H, W), rows of any stride, pixels contiguous
using Doubles = py::array_t<double, py::array::c_style>;
using BoxTuple = std::tuple<int64_t, int64_t, int64_t, int64_t>;

LumaView viewOf(const ByteImage& image) {
  if (image.ndim() != 2)
    throw py::value_error("expected an array of 2 dimensions, got " + std::to_string(image.ndim()));
  if (image.strides(1) != 1 && image.shape(1) > 1)
    throw py::value_error("the pixels of a row must be contiguous");
  checkFlowSize(image.shape(0), image.shape(1));
  return {image.data(), image.shape(0), image.shape(1), image.strides(0)};
}

void requireShape(const Doubles& array, py::ssize_t columns, const char* name) {
  if (array.ndim() != 2 || array.shape(1) != columns)
    throw py::value_error(std::string(name) + " must have shape (N, " + std::to_string(columns) + ")");
}

FlowBox boxOf(const BoxTuple& box) {
  return {std::get<0>(box), std::get<1>(box), std::get<2>(box), std::get<3>(box)};
}

std::vector<FlowPoint> pointsOf(const Doubles& array, const char* name) {
  requireShape(array, 2, name);
  std::vector<FlowPoint> points(array.shape(0));
  for (size_t i = 0; i < points.size(); ++i) points[i] = {array.data()[2 * i], array.data()[2 * i + 1]};
  return points;
}

Doubles arrayOf(const std::vector<FlowPoint>& points) {
  Doubles out({static_cast<py::ssize_t>(points.size()), py::ssize_t{2}});
  double* data = out.mutable_data();
  for (const FlowPoint& p : points) {
    *data++ = p.x;
    *data++ = p.y;
  }
  return out;
}

// (N, 8): anchor x, y, current x, y, belief xx, xy, yy, weight.
std::vector<Match> matchesOf(const Doubles& array) {
  requireShape(array, 8, "matches");
  std::vector<Match> matches;
  matches.reserve(array.shape(0));
  for (py::ssize_t i = 0; i < array.shape(0); ++i) {
    const double* v = array.data() + 8 * i;
    matches.push_back({{v[0], v[1]}, {v[2], v[3]}, v[4], v[5], v[6], v[7]});
  }
  return matches;
}

Affine affineOf(const Doubles& array) {
  if (array.ndim() != 2 || array.shape(0) != 2 || array.shape(1) != 3)
    throw py::value_error("an affine must have shape (2, 3)");
  const double* v = array.data();
  return {v[0], v[1], v[2], v[3], v[4], v[5]};
}

template <class Work>
auto unlocked(Work work) {
  py::gil_scoped_release release;
  return work();
}

Doubles flowSelect(const ByteImage& luma, const ByteImage& mask, const BoxTuple& box, int64_t count) {
  const LumaView image = viewOf(luma), object = viewOf(mask);
  const FlowBox where = boxOf(box);
  return arrayOf(unlocked([&] { return selectPoints(image, object, where, count); }));
}

BoxTuple flowBox(const ByteImage& mask) {
  const LumaView object = viewOf(mask);
  const FlowBox box = unlocked([&] { return maskBox(object); });
  return {box.x0, box.y0, box.x1, box.y1};
}

// Matches as of matchesOf, and the contrast of the points that were followed: those of some belief.
py::tuple flowMatch(const ByteImage& before, const ByteImage& after, const ByteImage& mask,
                    const BoxTuple& box, const Doubles& anchors, const Doubles& points,
                    const Doubles& guesses, const Doubles& beliefs, int levels, int iterations) {
  const LumaView from = viewOf(before), to = viewOf(after), object = viewOf(mask);
  const FlowBox where = boxOf(box);
  const auto starts = pointsOf(anchors, "anchors"), now = pointsOf(points, "points"),
             moves = pointsOf(guesses, "guesses");
  const size_t n = starts.size();
  if (now.size() != n || moves.size() != n || beliefs.ndim() != 1 ||
      static_cast<size_t>(beliefs.shape(0)) != n)
    throw py::value_error("each anchor needs one point, one guess and one belief");
  std::vector<size_t> alive;
  std::vector<FlowPoint> followed, expected;
  for (size_t i = 0; i < n; ++i)
    if (beliefs.data()[i] > 0.0) {
      alive.push_back(i);
      followed.push_back(now[i]);
      expected.push_back(moves[i]);
    }
  const std::vector<FlowTrack> tracks = unlocked(
      [&] { return trackPoints(from, to, object, where, followed, expected, levels, iterations); });
  Doubles matches({static_cast<py::ssize_t>(n), py::ssize_t{8}});
  Doubles contrast(static_cast<py::ssize_t>(tracks.size()));
  for (size_t i = 0; i < n; ++i) {
    const double row[8] = {starts[i].x, starts[i].y, now[i].x, now[i].y, 0, 0, 0, 0};
    std::copy_n(row, 8, matches.mutable_data() + 8 * i);
  }
  for (size_t k = 0; k < tracks.size(); ++k) {
    const FlowTrack& t = tracks[k];
    const Belief belief = believe(t);
    const double all = std::min(beliefs.data()[alive[k]], belief.all);
    const double row[6] = {t.x, t.y, belief.xx, belief.xy, belief.yy, all < kLost ? 0.0 : all};
    std::copy_n(row, 6, matches.mutable_data() + 8 * alive[k] + 2);
    contrast.mutable_data()[k] = t.contrast;
  }
  return py::make_tuple(matches, contrast);
}

py::tuple flowFit(const Doubles& matches, const Doubles& prior, double radius) {
  const std::vector<Match> pairs = matchesOf(matches);
  const Affine start = affineOf(prior);
  const Motion motion = unlocked([&] { return fitMotion(pairs, start, radius); });
  const Affine& f = motion.affine;
  Doubles affine({py::ssize_t{2}, py::ssize_t{3}});
  double* data = affine.mutable_data();
  for (const double v : {f.a, f.b, f.tx, f.c, f.d, f.ty}) *data++ = v;
  return py::make_tuple(affine,
                        Doubles(static_cast<py::ssize_t>(motion.weights.size()), motion.weights.data()));
}

Motion motionOf(const Doubles& affine, const Doubles& weights) {
  if (weights.ndim() != 1) throw py::value_error("weights must have shape (N,)");
  return {affineOf(affine), {weights.data(), weights.data() + weights.shape(0)}};
}

// Where the motion puts the matches, (N, 2), and the part of a frame of `size` that `box` may have come to.
py::tuple flowSmooth(const Doubles& matches, const Doubles& affine, const Doubles& weights, double radius,
                     const BoxTuple& box, std::pair<int64_t, int64_t> size) {
  const std::vector<Match> pairs = matchesOf(matches);
  const Motion motion = motionOf(affine, weights);
  std::vector<FlowPoint> places;
  for (const Match& m : pairs) places.push_back(m.anchor);
  const std::vector<FlowPoint> residuals = unlocked(
      [&] { return smoothResiduals(pairs, motion, radius, places, true); });
  for (size_t i = 0; i < places.size(); ++i) {
    const FlowPoint at = motion.affine(places[i]);
    places[i] = {at.x + residuals[i].x, at.y + residuals[i].y};
  }
  const FlowBox to = reachedBox(boxOf(box), motion.affine, residuals, size.first, size.second);
  return py::make_tuple(arrayOf(places), BoxTuple{to.x0, to.y0, to.x1, to.y1});
}

py::array_t<bool> flowWarp(const ByteImage& mask, const ByteImage& anchor, const ByteImage& current,
                           const Doubles& matches, const Doubles& affine, const Doubles& weights,
                           double radius, const BoxTuple& box, int64_t cell) {
  const LumaView object = viewOf(mask), then = viewOf(anchor), now = viewOf(current);
  const std::vector<Match> pairs = matchesOf(matches);
  const Motion motion = motionOf(affine, weights);
  const FlowBox where = boxOf(box);
  checkFlowBox(where, object.height, object.width);
  if (then.height != object.height || then.width != object.width || now.height != object.height ||
      now.width != object.width)
    throw py::value_error("frames and mask must have one size");
  py::array_t<bool> out({where.y1 - where.y0, where.x1 - where.x0});
  auto* data = reinterpret_cast<uint8_t*>(out.mutable_data());
  py::gil_scoped_release release;
  const BackwardMap map = backwardMap(pairs, motion, radius, where, cell);
  std::vector<uint8_t> bytes = warpMask(object, map);
  removeHidden(then, now, map, bytes);
  std::copy(bytes.begin(), bytes.end(), data);
  return out;
}

}  // namespace

// Shapes, units and errors are documented on the public faces in omni_sdk/dus/flow.
void register_propagation(py::module_& m) {
  m.def("flow_select", &flowSelect, py::arg("luma").noconvert(), py::arg("mask").noconvert(), py::arg("box"),
        py::arg("count"));
  m.def("flow_box", &flowBox, py::arg("mask").noconvert());
  m.def("flow_match", &flowMatch, py::arg("before").noconvert(), py::arg("after").noconvert(),
        py::arg("mask").noconvert(), py::arg("box"), py::arg("anchors"), py::arg("points"),
        py::arg("guesses"), py::arg("beliefs"), py::arg("levels"), py::arg("iterations"));
  m.def("flow_fit", &flowFit, py::arg("matches"), py::arg("prior"), py::arg("radius"));
  m.def("flow_smooth", &flowSmooth, py::arg("matches"), py::arg("affine"), py::arg("weights"),
        py::arg("radius"), py::arg("box"), py::arg("size"));
  m.def("flow_warp", &flowWarp, py::arg("mask").noconvert(), py::arg("anchor").noconvert(),
        py::arg("current").noconvert(), py::arg("matches"), py::arg("affine"), py::arg("weights"),
        py::arg("radius"), py::arg("box"), py::arg("cell"));
}

}  // namespace omni::bindings
