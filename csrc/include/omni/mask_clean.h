// Removal of small components and filling of small holes, on runs.
#pragma once

#include <cstdint>

#include "omni/bit_plane.h"

namespace omni {

// In place, on the rows of a mask: first removes foreground components (8-connected) of fewer than
// `minArea` pixels, then fills background components (4-connected) of at most `maxHole` pixels. A
// background component that touches the border of the image is no hole and stays.
void cleanMask(BitPlane& rows, int64_t minArea, int64_t maxHole);

}  // namespace omni
