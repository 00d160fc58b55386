"""Hold parity rows against their tolerances."""

from __future__ import annotations

from collections.abc import Sequence

from omni_sdk.bundle.manifest import ParityRow
from omni_sdk.errors import ParityError


def check_parity(rows: Sequence[ParityRow]) -> None:
    """Refuse rows out of tolerance.

    Raises:
        ParityError: names the first such row. A value that is not finite is out of tolerance.
    """
    for row in rows:
        if not row.value <= row.tolerance:
            raise ParityError(
                f"{row.subject} differs from {row.reference}: {row.measure} is {row.value:.3g}, at most "
                f"{row.tolerance:.3g} is allowed; nothing was written"
            )
