"""Helpers of the native kernels' tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from omni_sdk import native


@pytest.fixture(scope="session")
def built() -> None:
    """Require the native module: without it a comparison with numpy would compare numpy with itself."""
    if not native.available():
        pytest.fail("omni_sdk._core is not built, or OMNI_SDK_NO_NATIVE is set")


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send `omni_sdk.dus.masks` to its numpy references."""
    monkeypatch.setattr(native, "core", lambda: None)


@pytest.fixture(scope="session")
def blobs() -> Callable[..., NDArray[np.bool_]]:
    """Return a maker of smooth random masks with several components and holes."""

    def make(seed: int, height: int, width: int) -> NDArray[np.bool_]:
        rng = np.random.default_rng(seed)
        field = rng.normal(size=(height, width))
        for axis in (0, 1):
            kernel = np.hanning(9) / np.hanning(9).sum()
            field = np.apply_along_axis(lambda v, k=kernel: np.convolve(v, k, "same"), axis, field)
        return field > 0.05

    return make
