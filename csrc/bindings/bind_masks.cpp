#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "omni/mask_boundary.h"
#include "omni/mask_clean.h"
#include "omni/mask_rle.h"
#include "omni/mask_upsample.h"

namespace py = pybind11;

namespace omni::bindings {
namespace {

using ByteArray = py::array_t<uint8_t>;  // (H, W), any strides
using FloatArray = py::array_t<float, py::array::c_style>;

void requireDimensions(const py::array& array, py::ssize_t expected) {
  if (array.ndim() != expected)
    throw py::value_error("expected an array of " + std::to_string(expected) + " dimensions, got " +
                          std::to_string(array.ndim()));
}

// Checked before the data pointer is used.
MaskView viewOf(const ByteArray& mask) {
  requireDimensions(mask, 2);
  checkMaskSize(mask.shape(0), mask.shape(1));
  return {mask.data(), mask.shape(0), mask.shape(1), mask.strides(0), mask.strides(1)};
}

py::array_t<bool> arrayOf(const BitPlane& rows) {
  py::array_t<bool> out({rows.lines, rows.length});
  auto* data = reinterpret_cast<uint8_t*>(out.mutable_data());
  py::gil_scoped_release release;
  unpackRows(rows, data);
  return out;
}

std::vector<Runs> parseAll(const std::vector<std::string_view>& texts, int64_t height, int64_t width) {
  std::vector<Runs> masks;
  masks.reserve(texts.size());
  for (std::string_view text : texts) masks.push_back(parseRle(text, height, width));
  return masks;
}

std::vector<std::string_view> textsOf(const std::vector<py::bytes>& counts) {
  return {counts.begin(), counts.end()};
}

// Runs `work` without the interpreter lock.
template <class Work>
auto unlocked(Work work) {
  py::gil_scoped_release release;
  return work();
}

py::bytes rleEncode(const ByteArray& mask) {
  const MaskView view = viewOf(mask);
  return unlocked([&] { return encodeRle(packColumns(view)); });
}

py::array_t<bool> rleDecode(const py::bytes& counts, int64_t height, int64_t width) {
  const std::string_view text = counts;
  return arrayOf(
      unlocked([&] { return transpose(columnsFromRuns(parseRle(text, height, width), height, width)); }));
}

std::vector<py::bytes> logitsToRle(const FloatArray& logits, int64_t height, int64_t width, float threshold) {
  requireDimensions(logits, 3);
  const int64_t n = logits.shape(0), h = logits.shape(1), w = logits.shape(2);
  const float* data = logits.data();
  const std::vector<std::string> texts = unlocked([&] {
    std::vector<std::string> out;
    for (int64_t i = 0; i < n; ++i)
      out.push_back(encodeRle(transpose(upsampleLogits(data + i * h * w, h, w, height, width, threshold))));
    return out;
  });
  return {texts.begin(), texts.end()};
}

int64_t rleArea(const py::bytes& counts, int64_t height, int64_t width) {
  const std::string_view text = counts;
  return unlocked([&] { return runsArea(parseRle(text, height, width)); });
}

py::tuple rleBox(const py::bytes& counts, int64_t height, int64_t width) {
  const std::string_view text = counts;
  const PixelBox box = unlocked([&] { return runsBox(parseRle(text, height, width), height); });
  return py::make_tuple(box.x0, box.y0, box.x1, box.y1);
}

py::array_t<double> rleIou(const std::vector<py::bytes>& a, const std::vector<py::bytes>& b, int64_t height,
                           int64_t width) {
  const auto ta = textsOf(a), tb = textsOf(b);
  const std::vector<double> iou = unlocked(
      [&] { return runsIou(parseAll(ta, height, width), parseAll(tb, height, width), height); });
  return py::array_t<double>({a.size(), b.size()}, iou.data());
}

py::bytes rleUnion(const std::vector<py::bytes>& counts, int64_t height, int64_t width) {
  const auto texts = textsOf(counts);
  return unlocked([&] {
    checkMaskSize(height, width);
    Runs all{static_cast<int32_t>(height * width)};
    for (std::string_view text : texts) all = runsUnion(all, parseRle(text, height, width));
    return formatRle(all);
  });
}

double maskIouOf(const ByteArray& a, const ByteArray& b) {
  const MaskView va = viewOf(a), vb = viewOf(b);
  return unlocked([&] { return maskIou(va, vb); });
}

py::array_t<bool> clean(const ByteArray& mask, int64_t minArea, int64_t maxHole) {
  const MaskView view = viewOf(mask);
  return arrayOf(unlocked([&] {
    BitPlane rows = packRows(view);
    cleanMask(rows, minArea, maxHole);
    return rows;
  }));
}

py::array_t<bool> boundary(const ByteArray& mask) {
  const MaskView view = viewOf(mask);
  return arrayOf(unlocked([&] { return boundaryRows(packRows(view)); }));
}

py::tuple boundaryMatch(const ByteArray& a, const ByteArray& b, int64_t radius) {
  const MaskView va = viewOf(a), vb = viewOf(b);
  const BoundaryMatch m = unlocked([&] { return matchBoundaries(packRows(va), packRows(vb), radius); });
  return py::make_tuple(m.countA, m.countB, m.matchedA, m.matchedB);
}

}  // namespace

// Shapes, units and errors are documented on the public faces in omni_sdk/dus/masks.py.
void register_masks(py::module_& m) {
  m.def("rle_encode", &rleEncode, py::arg("mask").noconvert());
  m.def("rle_decode", &rleDecode, py::arg("counts"), py::arg("height"), py::arg("width"));
  m.def("logits_to_rle", &logitsToRle, py::arg("logits").noconvert(), py::arg("height"), py::arg("width"),
        py::arg("threshold"));
  m.def("rle_area", &rleArea, py::arg("counts"), py::arg("height"), py::arg("width"));
  m.def("rle_box", &rleBox, py::arg("counts"), py::arg("height"), py::arg("width"));
  m.def("rle_iou", &rleIou, py::arg("a"), py::arg("b"), py::arg("height"), py::arg("width"));
  m.def("rle_union", &rleUnion, py::arg("counts"), py::arg("height"), py::arg("width"));
  m.def("mask_iou", &maskIouOf, py::arg("a").noconvert(), py::arg("b").noconvert());
  m.def("clean_mask", &clean, py::arg("mask").noconvert(), py::arg("min_area"), py::arg("max_hole"));
  m.def("boundary", &boundary, py::arg("mask").noconvert());
  m.def("boundary_match", &boundaryMatch, py::arg("a").noconvert(), py::arg("b").noconvert(),
        py::arg("radius"));
}

}  // namespace omni::bindings
