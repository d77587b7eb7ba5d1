"""The options that give each layer its rank and scale: one rule, and exceptions by paths' ends.

PEFT writes r and lora_alpha for most layers, and rank_pattern and alpha_pattern for the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from minilora.system.errors import UsageError


def ranks_and_alphas(
    ranks: Mapping[str, int], scales: Mapping[str, float], use_rslora: bool
) -> dict[str, Any]:
    """r, lora_alpha and both patterns, from the rank r and the scale s of the layer at each path.

    Raises ValueError for a scale that is not finite.
    """
    r, rank_pattern = _rule_and_exceptions(ranks)
    alphas = {path: _alpha(ranks[path], scale, use_rslora) for path, scale in scales.items()}
    lora_alpha, alpha_pattern = _rule_and_exceptions(alphas)
    return dict(r=r, lora_alpha=lora_alpha, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern)


def _alpha(r: int, scale: float, use_rslora: bool) -> float:
    """The alpha that gives this scale at this rank, as a round number if that gives it exactly."""
    divisor = math.sqrt(r) if use_rslora else r
    alpha = scale * divisor
    if not math.isfinite(alpha):
        raise UsageError(f"an adapter's scale is {scale}; change lora_alpha to a finite number")
    return next((a for a in (round(alpha), round(alpha, 6)) if a / divisor == scale), alpha)


def _rule_and_exceptions(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The most common value, and the others by the ends of their paths (rank_pattern)."""
    common = Counter(values.values()).most_common(1)[0][0]
    exceptions: dict[str, Any] = {}
    for value in dict.fromkeys(v for v in values.values() if v != common):
        paths = [path for path, v in values.items() if v == value]
        exceptions |= dict.fromkeys(shortest_ends(paths, values), value)
    return common, exceptions


def _matches_end(path: str, end: str) -> bool:
    """PEFT's rule for target_modules: "c_attn" is every module of that name, wherever it is."""
    return path == end or path.endswith(f".{end}")


def shortest_ends(
    chosen: Iterable[str],
    among: Collection[str],
    matches: Callable[[str, str], bool] = _matches_end,
) -> list[str]:
    """The fewest words that choose exactly these paths: "c_attn", else "attn.c_proj", else all."""
    wanted, ends = set(chosen), []
    for path in wanted:
        words = path.split(".")
        short = (words[-1], ".".join(words[-2:]))
        fits = (e for e in short if all(p in wanted for p in among if matches(p, e)))
        ends.append(next(fits, path))
    return sorted(set(ends))
