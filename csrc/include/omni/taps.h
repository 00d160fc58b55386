// The taps of an antialiased resize along one axis, before they are rounded to integers.
#pragma once

#include <cstdint>
#include <vector>

namespace omni {

enum class Filter { bilinear, bicubic };

// Sizes are in [1, max_side].
constexpr std::int64_t max_side = 1 << 20;

// Output i = sum_j values[i * stride + j] * input[starts[i] + j], j < counts[i]; the weights sum to 1.
struct Taps {
  std::vector<std::int64_t> starts;
  std::vector<std::int64_t> counts;
  std::vector<double> values;  // rows of `stride`, zero beyond the count
  std::int64_t stride = 0;
};

// Throws std::invalid_argument for a size outside [1, max_side].
void check_side(std::int64_t side);

// The filter is stretched by `scale`, input samples per output sample, where that is above 1; output i has
// its centre at scale * (i + 0.5) + shift, where input sample k has its own at k + 0.5.
Taps make_taps(std::int64_t input_size, std::int64_t output_size, double scale, double shift, Filter filter);

}  // namespace omni
