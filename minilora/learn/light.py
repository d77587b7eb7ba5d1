"""Less work in a browser, where NumPy has no BLAS and its products are far slower."""

from __future__ import annotations

import sys

_PART = 10  # in a browser one of so many


def light(number: int) -> int:
    """How many steps a lesson trains, or windows it measures, here: all, or in a browser a tenth,
    which is said, because its numbers then are not those of the text."""
    if sys.platform != "emscripten":
        return number
    fewer = max(1, number // _PART)
    print(f"In a browser {fewer} in place of {number}: the numbers below are other ones.")
    return fewer
