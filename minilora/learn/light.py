"""Fewer steps in a browser, where NumPy has no BLAS and computes about thirteen times as slowly."""

from __future__ import annotations

import sys

_PART = 5  # in a browser one step of so many is taken


def light(steps: int) -> int:
    """The number of training steps a lesson takes here: all, or in a browser a fifth of them, which
    is said, because its numbers then are not those of the text."""
    if sys.platform != "emscripten":
        return steps
    fewer = max(1, steps // _PART)
    print(f"In a browser {fewer} steps are taken in place of {steps}: the numbers are other ones.")
    return fewer
