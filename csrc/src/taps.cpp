#include "omni/taps.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace omni {
namespace {

double filter_value(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::bilinear) {
    return x < 1.0 ? 1.0 - x : 0.0;
  }
  constexpr double a = -0.5;  // antialiased bicubic, as PIL; without antialias torch has -0.75
  if (x < 1.0) {
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  }
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

}  // namespace

void check_side(std::int64_t side) {
  if (side < 1 || side > max_side) {
    throw std::invalid_argument("image sides must be in [1, " + std::to_string(max_side) + "], got " +
                                std::to_string(side));
  }
}

Taps make_taps(std::int64_t input_size, std::int64_t output_size, double scale, double shift, Filter filter) {
  check_side(input_size);
  check_side(output_size);
  const double reach = filter == Filter::bicubic ? 2.0 : 1.0;
  const double support = scale >= 1.0 ? reach * scale : reach;
  const double inverse = scale >= 1.0 ? 1.0 / scale : 1.0;

  Taps result;
  result.stride = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  result.starts.resize(static_cast<std::size_t>(output_size));
  result.counts.resize(static_cast<std::size_t>(output_size));
  result.values.assign(static_cast<std::size_t>(output_size * result.stride), 0.0);
  for (std::int64_t i = 0; i < output_size; ++i) {
    const double center = scale * (static_cast<double>(i) + 0.5) + shift;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last = std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), input_size);
    const auto count = std::clamp<std::int64_t>(last - first, 0, result.stride);
    double* row = result.values.data() + i * result.stride;
    double total = 0.0;
    for (std::int64_t j = 0; j < count; ++j) {
      row[j] = filter_value(filter, (static_cast<double>(j + first) - center + 0.5) * inverse);
      total += row[j];
    }
    for (std::int64_t j = 0; j < count; ++j) {
      row[j] = total != 0.0 ? row[j] / total : row[j];
    }
    result.starts[static_cast<std::size_t>(i)] = first;
    result.counts[static_cast<std::size_t>(i)] = count;
  }
  return result;
}

}  // namespace omni
