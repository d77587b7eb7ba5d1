"""Checks of arguments where they enter, so that an error names what the caller typed."""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any

import numpy as np

from minilora.system.errors import UsageError, brief

_LARGEST_SIZE = 2**31 - 1


def require_whole(at_least: int, **values: Any) -> None:
    """Raise ValueError, naming the argument, unless each value is a whole number >= `at_least`.

    A bool is none, though Python counts with it; a NumPy integer is one.
    """
    for name, value in values.items():
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_whole or value < at_least:
            raise UsageError(
                f"{name} must be a whole number of at least {at_least}, got {brief(value)}"
            )


def require_size(**values: Any) -> None:
    """Raise ValueError, naming the argument, unless each value is a whole number from 1 to what an
    array can have."""
    require_whole(1, **values)
    for name, value in values.items():
        if value > _LARGEST_SIZE:
            raise UsageError(f"{name} must be at most {_LARGEST_SIZE:,}, got {brief(value)}")


def require_positive(**values: Any) -> None:
    """Raise ValueError, naming the argument, unless each value is a finite number above 0."""
    for name, value in values.items():
        too_large = isinstance(value, int) and value > sys.float_info.max
        if not (is_number(value) and 0 < value < math.inf) or too_large:
            raise UsageError(f"{name} must be a positive number, got {brief(value)}")


def require_between(low: float, high: float, **values: Any) -> None:
    """Raise ValueError, naming the argument, unless low <= each value <= high."""
    for name, value in values.items():
        if not (is_number(value) and low <= value <= high):
            raise UsageError(
                f"{name} must be a number from {low:g} to {high:g}, got {brief(value)}"
            )


def require_rng(rng: Any) -> None:
    """Raise ValueError unless `rng` is a NumPy random generator."""
    if not isinstance(rng, np.random.Generator):
        raise UsageError(f"rng must be np.random.default_rng(seed), got {rng!r}")


def is_number(value: Any) -> bool:
    """A bool is none, though Python counts with it; a NumPy number is one."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
