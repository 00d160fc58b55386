// Low-resolution mask logits -> the bits of the full-size mask, without a full-size float image.
#pragma once

#include <cstdint>

#include "omni/bit_plane.h"

namespace omni {

// Bilinear resize (half-pixel centres, align_corners=False, no antialiasing) of row-major `logits` of
// size height x width, then `value > threshold`; the rows of the outHeight x outWidth mask.
//
// Note [Rounding of the upsampling]
// Every operation is in IEEE single precision, in the order of torch's CPU kernel built with fused
// multiply-add: source = fma(in / out, i + 0.5, -0.5) clamped at 0, weights w1 = source - floor(source)
// and w0 = 1 - w1, horizontally first, each pair joined as fma(a, w0, b * w1). NaN is background.
// So values equal torch.nn.functional.interpolate(mode="bilinear") bit for bit where torch runs that
// kernel (x86 with AVX2, outHeight + outWidth > 128). Its other kernels round differently: a pixel can
// differ from them only where its value is within a few ulps (of the largest of its four neighbours)
// of the threshold.
//
// Throws std::invalid_argument where a size is out of range (see checkMaskSize).
BitPlane upsampleLogits(const float* logits, int64_t height, int64_t width, int64_t outHeight,
                        int64_t outWidth, float threshold);

}  // namespace omni
