#include "omni/flow_motion.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "omni/multiversion.h"

namespace omni {
namespace {

constexpr double kPullLinear = 0.01, kPullShift = 0.0001;  // of the sum of weights
constexpr double kAgreement = 1.0;  // difference between neighbours that is none, pixels
constexpr double kSupport = 0.35;   // share of neighbours in agreement that is enough
constexpr double kRigid = 0.6;      // residuals of this many pixels are halved: noise of a rigid object
constexpr double kFewShift = 0.02, kFewLinear = 0.1;  // pull to no residual, of the sum of weights

// 6 equations and their right side; T is a double or several systems' doubles beside each other.
template <class T>
using System = std::array<std::array<T, 7>, 6>;

// Gaussian elimination without pivoting: the system is symmetric and positive definite.
template <class T>
inline __attribute__((always_inline)) void solve(System<T>& s, std::array<T, 6>& x) {
  for (int k = 0; k < 6; ++k)
    for (int i = k + 1; i < 6; ++i) {
      const T factor = s[i][k] / s[k][k];
      for (int j = k; j < 7; ++j) s[i][j] = s[i][j] - factor * s[k][j];
    }
  for (int i = 5; i >= 0; --i) {
    T sum = s[i][6];
    for (int j = i + 1; j < 6; ++j) sum = sum - s[i][j] * x[j];
    x[i] = sum / s[i][i];
  }
}

double square(const Match& m, const FlowPoint& r) {
  return m.xx * r.x * r.x + 2.0 * m.xy * r.x * r.y + m.yy * r.y * r.y;
}

// The affine in normalised coordinates: current = (p[0], p[3]) + [p1 p2; p4 p5] (anchor - centre) / spread.
class Fit {
 public:
  Fit(const std::vector<Match>& matches, const Affine& prior) : matches_(matches) {
    double total = 0.0;
    for (const Match& m : matches) {
      total += m.weight;
      centre_.x += m.weight * m.anchor.x;
      centre_.y += m.weight * m.anchor.y;
    }
    if (!(total > 0.0)) {
      empty_ = true;
      return;
    }
    centre_ = {centre_.x / total, centre_.y / total};
    double squares = 0.0;
    for (const Match& m : matches) {
      const double dx = m.anchor.x - centre_.x, dy = m.anchor.y - centre_.y;
      squares += m.weight * (dx * dx + dy * dy);
    }
    spread_ = std::max(std::sqrt(squares / total), 1.0);
    const FlowPoint at = prior(centre_);
    prior_ = {at.x, prior.a * spread_, prior.b * spread_, at.y, prior.c * spread_, prior.d * spread_};
    now_ = prior_;
  }

  bool empty() const { return empty_; }
  double spread() const { return spread_; }

  FlowPoint left(const Match& m) const {
    const double x = (m.anchor.x - centre_.x) / spread_, y = (m.anchor.y - centre_.y) / spread_;
    return {m.current.x - (now_[0] + now_[1] * x + now_[2] * y),
            m.current.y - (now_[3] + now_[4] * x + now_[5] * y)};
  }

  double largest() const {
    double value = 0.0;
    for (const Match& m : matches_)
      if (m.weight > 0.0) value = std::max(value, square(m, left(m)));
    return value;
  }

  // One weighted least-squares step at a scale (squared).
  void step(double scale) {
    System<double> s{};
    double total = 0.0;
    for (const Match& m : matches_) {
      if (!(m.weight > 0.0)) continue;
      const FlowPoint r = left(m);
      const double soft = scale / (scale + square(m, r));
      const double w = m.weight * soft * soft;
      const double v[3] = {1.0, (m.anchor.x - centre_.x) / spread_, (m.anchor.y - centre_.y) / spread_};
      const double rx = w * (m.xx * r.x + m.xy * r.y), ry = w * (m.xy * r.x + m.yy * r.y);
      for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
          const double vv = w * (v[i] * v[j]);
          s[i][j] += m.xx * vv;
          s[i][3 + j] += m.xy * vv;
          s[3 + i][j] += m.xy * vv;
          s[3 + i][3 + j] += m.yy * vv;
        }
        s[i][6] += rx * v[i];
        s[3 + i][6] += ry * v[i];
      }
      total += w;
    }
    for (int i = 0; i < 6; ++i) {
      const double pull = total * (i % 3 == 0 ? kPullShift : kPullLinear) + 1e-9;
      s[i][i] += pull;
      s[i][6] += pull * (prior_[i] - now_[i]);
    }
    std::array<double, 6> delta;
    solve(s, delta);
    for (int i = 0; i < 6; ++i) now_[i] += delta[i];
  }

  Affine affine() const {
    const double a = now_[1] / spread_, b = now_[2] / spread_;
    const double c = now_[4] / spread_, d = now_[5] / spread_;
    return {a, b, now_[0] - (a * centre_.x + b * centre_.y), c, d, now_[3] - (c * centre_.x + d * centre_.y)};
  }

 private:
  const std::vector<Match>& matches_;
  FlowPoint centre_{0.0, 0.0};
  double spread_ = 1.0;
  std::array<double, 6> prior_{}, now_{};
  bool empty_ = false;
};

// (1 - d^2 / radius^2)^2 / (1 + (3 d / radius)^2)^2 of squares.
double kernel(double distance, double reach) {
  if (distance >= reach) return 0.0;
  const double share = distance / reach;
  const double k = (1.0 - share) / (1.0 + 9.0 * share);
  return k * k;
}

double distanceSquared(const FlowPoint& p, const FlowPoint& q) {
  const double dx = p.x - q.x, dy = p.y - q.y;
  return dx * dx + dy * dy;
}

std::vector<FlowPoint> leftOvers(const std::vector<Match>& matches, const Affine& affine) {
  std::vector<FlowPoint> left;
  left.reserve(matches.size());
  for (const Match& m : matches) {
    const FlowPoint at = affine(m.anchor);
    left.push_back({m.current.x - at.x, m.current.y - at.y});
  }
  return left;
}

// What one match says to the places around it.
struct Voice {
  double x, y;                // where it is
  double xx, xy, yy, rx, ry;  // its belief by direction, and that times what the affine leaves
  double weight;
};

// Four places beside each other; each lane sums in the matches' order, as one place would alone.
constexpr int kLanes = 4;
using Lanes = double __attribute__((vector_size(kLanes * sizeof(double))));

// Residuals at places, as the constant part of an affine fit to those around them.
OMNI_MULTIVERSION void localFits(const std::vector<Voice>& voices, double radius, const FlowPoint* places,
                                 FlowPoint* out) {
  Lanes x, y;
  for (int k = 0; k < kLanes; ++k) {
    x[k] = places[k].x;
    y[k] = places[k].y;
  }
  double left = x[0], right = x[0], top = y[0], bottom = y[0];
  for (int k = 1; k < kLanes; ++k) {
    left = std::min(left, x[k]);
    right = std::max(right, x[k]);
    top = std::min(top, y[k]);
    bottom = std::max(bottom, y[k]);
  }
  const double reach = radius * radius;
  const double far = radius + 1.0;  // certainly out of reach, whatever the rounding
  const Lanes none{};
  Lanes xx[6] = {}, xy[6] = {}, yy[6] = {}, rx[3] = {}, ry[3] = {}, total{};
  for (const Voice& m : voices) {
    if (m.x < left - far || m.x > right + far || m.y < top - far || m.y > bottom + far) continue;
    const Lanes dx = x - m.x, dy = y - m.y, distance = dx * dx + dy * dy;
    const Lanes share = distance / reach;
    const Lanes k = (1.0 - share) / (1.0 + 9.0 * share);
    const Lanes w = (distance < reach ? k * k : none) * m.weight;
    const Lanes u = (m.x - x) / radius, v = (m.y - y) / radius;
    const Lanes moments[6] = {w, w * u, w * v, w * (u * u), w * (u * v), w * (v * v)};
    for (int i = 0; i < 6; ++i) {
      xx[i] += m.xx * moments[i];
      xy[i] += m.xy * moments[i];
      yy[i] += m.yy * moments[i];
    }
    for (int i = 0; i < 3; ++i) {
      rx[i] += m.rx * moments[i];
      ry[i] += m.ry * moments[i];
    }
    total += w;
  }
  static constexpr int kIndex[3][3] = {{0, 1, 2}, {1, 3, 4}, {2, 4, 5}};
  System<Lanes> s;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      s[i][j] = xx[kIndex[i][j]];
      s[i][3 + j] = s[3 + i][j] = xy[kIndex[i][j]];
      s[3 + i][3 + j] = yy[kIndex[i][j]];
    }
    s[i][6] = rx[i];
    s[3 + i][6] = ry[i];
  }
  for (int i = 0; i < 6; ++i) s[i][i] += total * (i % 3 == 0 ? kFewShift : kFewLinear) + 1e-6;
  std::array<Lanes, 6> p;
  solve(s, p);
  const Lanes size = p[0] * p[0] + p[3] * p[3];
  const Lanes kept = size / (size + kRigid * kRigid);
  const Lanes foundX = total > none ? kept * p[0] : none, foundY = total > none ? kept * p[3] : none;
  for (int k = 0; k < kLanes; ++k) out[k] = {foundX[k], foundY[k]};
}

}  // namespace

Motion fitMotion(const std::vector<Match>& matches, const Affine& prior, double radius) {
  const size_t n = matches.size();
  Motion motion{prior, std::vector<double>(n)};
  Fit fit(matches, prior);
  if (fit.empty()) return motion;
  const double floor = kAffineScale + 0.02 * fit.spread();
  double scale = fit.largest();
  for (int round = 0; round < kRounds; ++round) {
    scale = std::max(scale, floor * floor);
    fit.step(scale);
    scale = scale / 3.0;
  }
  motion.affine = fit.affine();
  const std::vector<FlowPoint> left = leftOvers(matches, motion.affine);
  const double reach = radius * radius;
  for (size_t i = 0; i < n; ++i) {
    const Match& m = matches[i];
    if (!(m.weight > 0.0)) continue;
    double agreed = 0.0, all = 0.0;
    for (size_t j = 0; j < n; ++j) {
      const Match& other = matches[j];
      if (j == i || !(other.weight > 0.0)) continue;
      const double distance = distanceSquared(m.anchor, other.anchor);
      if (distance >= reach) continue;
      const double k = kernel(distance, reach) * other.weight * (other.xx + other.yy);
      const FlowPoint apart{left[i].x - left[j].x, left[i].y - left[j].y};
      const double allowed = kAgreement + kStrain * kStrain * distance;
      const double soft = allowed / (allowed + std::min(square(m, apart), square(other, apart)));
      agreed += k * (soft * soft);
      all += k;
    }
    // Without neighbours there is nothing to disagree with, and little to believe.
    const double share = all > 0.0 ? std::min(agreed / all / kSupport, 1.0) : 0.5;
    motion.weights[i] = m.weight * (share * share);
  }
  return motion;
}

std::vector<FlowPoint> smoothResiduals(const std::vector<Match>& matches, const Motion& motion, double radius,
                                       const std::vector<FlowPoint>& places, bool byAnchor) {
  if (motion.weights.size() != matches.size()) throw std::invalid_argument("each match needs one weight");
  const std::vector<FlowPoint> left = leftOvers(matches, motion.affine);
  std::vector<Voice> voices;
  voices.reserve(matches.size());
  for (size_t i = 0; i < matches.size(); ++i) {
    if (!(motion.weights[i] > 0.0)) continue;
    const Match& m = matches[i];
    const FlowPoint &at = byAnchor ? m.anchor : m.current, &r = left[i];
    voices.push_back(
        {at.x, at.y, m.xx, m.xy, m.yy, m.xx * r.x + m.xy * r.y, m.xy * r.x + m.yy * r.y, motion.weights[i]});
  }
  const size_t n = places.size();
  std::vector<FlowPoint> out(n);
  for (size_t i = 0; i < n; i += kLanes) {
    FlowPoint here[kLanes], found[kLanes];
    for (size_t k = 0; k < kLanes; ++k) here[k] = places[std::min(i + k, n - 1)];
    localFits(voices, radius, here, found);
    for (size_t k = 0; k < kLanes && i + k < n; ++k) out[i + k] = found[k];
  }
  return out;
}

FlowBox reachedBox(const FlowBox& box, const Affine& affine, const std::vector<FlowPoint>& residuals,
                   int64_t height, int64_t width) {
  double farX = 0.0, farY = 0.0;
  for (const FlowPoint& r : residuals) {
    farX = std::max(farX, std::fabs(r.x));
    farY = std::max(farY, std::fabs(r.y));
  }
  const auto x0 = static_cast<double>(box.x0), x1 = static_cast<double>(box.x1);
  const auto y0 = static_cast<double>(box.y0), y1 = static_cast<double>(box.y1);
  const FlowPoint corners[4] = {affine({x0, y0}), affine({x1, y0}), affine({x0, y1}), affine({x1, y1})};
  FlowPoint low = corners[0], high = corners[0];
  for (const FlowPoint& p : corners) {
    low = {std::min(low.x, p.x), std::min(low.y, p.y)};
    high = {std::max(high.x, p.x), std::max(high.y, p.y)};
  }
  // Whole pixels within the frame; what is no number becomes 0.
  const auto within = [](double v, int64_t size) {
    return v > 0.0 ? static_cast<int64_t>(std::min(v, static_cast<double>(size))) : 0;
  };
  return {within(std::floor(low.x - (farX + 2.0)), width), within(std::floor(low.y - (farY + 2.0)), height),
          within(std::ceil(high.x + (farX + 2.0)), width), within(std::ceil(high.y + (farY + 2.0)), height)};
}

BackwardMap backwardMap(const std::vector<Match>& matches, const Motion& motion, double radius,
                        const FlowBox& box, int64_t cell) {
  if (cell < 1 || cell > 64) throw std::invalid_argument("the cell must be in [1, 64]");
  const Affine& f = motion.affine;
  const double det = f.a * f.d - f.b * f.c;
  if (!(std::fabs(det) > 1e-9)) throw std::invalid_argument("the motion cannot be inverted");
  BackwardMap map{
      box, cell, (box.y1 - box.y0 + cell - 1) / cell + 1, (box.x1 - box.x0 + cell - 1) / cell + 1, {}};
  for (int64_t i = 0; i < map.rows; ++i)
    for (int64_t j = 0; j < map.columns; ++j)
      map.nodes.push_back({static_cast<double>(box.x0 + cell * j), static_cast<double>(box.y0 + cell * i)});
  const std::vector<FlowPoint> residuals = smoothResiduals(matches, motion, radius, map.nodes, false);
  for (size_t i = 0; i < map.nodes.size(); ++i) {
    const double x = map.nodes[i].x - residuals[i].x - f.tx;
    const double y = map.nodes[i].y - residuals[i].y - f.ty;
    map.nodes[i] = {(f.d * x - f.b * y) / det, (f.a * y - f.c * x) / det};
  }
  return map;
}

}  // namespace omni
