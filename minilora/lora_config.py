"""What to adapt, and how: the options of LoRA under PEFT's names.

Kept apart from lora.py so that there the method can be read without the bookkeeping. What the
options select in a model is found in lora_targets.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np

from minilora.lora_init import INITS, PART_OF_W
from minilora.nn import Linear
from minilora.path_patterns import match_end, require_patterns
from minilora.system.checks import (
    is_number,
    require_between,
    require_positive,
    require_size,
    require_whole,
)
from minilora.system.errors import UsageError, brief

Patterns = str | Sequence[str]
_LARGEST_ALPHA = 1e9  # beyond it no product s A B is a number
_Q_AND_V = ("q_proj", "v_proj")

DEFAULT = "default"  # the name of an adapter that was given none


@dataclass(frozen=True)
class LoraConfig:
    """PEFT's options, with PEFT's meaning and defaults. None stands for the default.

    r: the rank, at least 1. lora_alpha: above 0; the scale is s = lora_alpha / r.
    target_modules, exclude_modules: a list matches the ends of paths ("q_proj" is every q_proj), a
        string is a regular expression for a whole path, "all-linear" every Linear but the head.
        (PEFT's default depends on the model; here it is the paper's choice, q and v.)
    lora_dropout: probability of dropping an input of the adapter, in [0, 1).
    bias: which biases train too: "none", "all", or "lora_only" (those of the adapted Linears).
    use_rslora: s = lora_alpha / sqrt(r) instead of lora_alpha / r (Kalajdzievski 2023).
    use_dora: train the length of every column of W apart from its direction (Liu et al. 2024);
        see methods/variants.py.
    init_lora_weights: True, "gaussian", "pissa" or "olora": see lora_init.py. False: B random too,
        so that the adapted model does not start at the base.
    rank_pattern, alpha_pattern: exceptions to r and lora_alpha, by regular expression of a path's
        end.
    layers_to_transform: the numbers of the layers to adapt (default: all). A target named by its
        whole path, such as "head", is adapted in any case.
    modules_to_save: modules trained whole, in a copy that belongs to the adapter, such as "norm".

    The rest, from task_type on, is taken because PEFT's users write it; it has no effect here.
    Raises ValueError, which names the option, for values outside their range.
    """

    r: int = 8
    lora_alpha: float = 8
    target_modules: Patterns = _Q_AND_V
    exclude_modules: Patterns = ()
    lora_dropout: float = 0.0
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers_to_transform: int | Sequence[int] | None = None
    modules_to_save: Patterns = ()
    task_type: InitVar[Any] = None
    base_model_name_or_path: InitVar[Any] = None
    revision: InitVar[Any] = None
    fan_in_fan_out: InitVar[Any] = False
    layers_pattern: InitVar[Any] = None
    inference_mode: InitVar[Any] = False

    def __post_init__(self, *for_pefts_sake: Any) -> None:
        *_, inference_mode = for_pefts_sake
        if inference_mode:
            raise UsageError("inference_mode=True would freeze the adapter that is to be trained")
        self._fill_in()
        require_size(r=self.r)
        _require_alpha(lora_alpha=self.lora_alpha)
        for number in self.layer_numbers() or ():
            require_whole(0, layers_to_transform=number)
        for path, rank in self.rank_pattern.items():
            require_size(**{f"rank_pattern[{brief(path)}]": rank})
        for path, alpha in self.alpha_pattern.items():
            _require_alpha(**{f"alpha_pattern[{brief(path)}]": alpha})
        if self.bias not in ("none", "all", "lora_only"):
            raise UsageError(f'bias must be "none", "all" or "lora_only", got {brief(self.bias)}')
        init = self.init_lora_weights
        if not isinstance(init, bool | str) or init not in INITS:
            raise UsageError(f"init_lora_weights must be one of {INITS}, got {brief(init)}")
        if not is_number(self.lora_dropout) or not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout must lie in [0, 1), got {brief(self.lora_dropout)}")
        for option in ("use_rslora", "use_dora"):
            if not isinstance(getattr(self, option), bool | np.bool):
                raise UsageError(
                    f"{option} must be True or False, got {brief(getattr(self, option))}"
                )
        texts = [p for p in (self.target_modules, self.exclude_modules) if isinstance(p, str)]
        require_patterns([*texts, *self.rank_pattern, *self.alpha_pattern])

    def _fill_in(self) -> None:
        """Put defaults in the place of None, and tuples in that of lists, sets and generators."""
        whole: Any = self.modules_to_save  # here a string is a name, not a regular expression
        whole = [whole] if isinstance(whole, str) else whole
        filled: dict[str, Any] = {
            "target_modules": _names("target_modules", self.target_modules, _Q_AND_V),
            "exclude_modules": _names("exclude_modules", self.exclude_modules),
            "modules_to_save": _names("modules_to_save", whole),
            "rank_pattern": _by_path("rank_pattern", self.rank_pattern),
            "alpha_pattern": _by_path("alpha_pattern", self.alpha_pattern),
        }
        layers: Any = self.layers_to_transform
        if isinstance(layers, Iterable) and not isinstance(layers, str | Mapping):
            filled["layers_to_transform"] = tuple(layers)
        for option, value in filled.items():
            object.__setattr__(self, option, value)

    def rank_and_scale(self, path: str) -> tuple[int, float]:
        """r and s of the adapter at a path: ΔW = s A B."""
        r = _first_match(self.rank_pattern, path, self.r)
        alpha = _first_match(self.alpha_pattern, path, self.lora_alpha)
        return r, float(alpha / (math.sqrt(r) if self.use_rslora else r))

    def layer_numbers(self) -> tuple[int, ...] | None:
        """layers_to_transform as a tuple; None stands for all."""
        layers = self.layers_to_transform
        if layers is None:
            return None
        return layers if isinstance(layers, tuple) else (layers,)

    @property
    def kind(self) -> str:
        """Which of lora.KINDS an adapter of this configuration is."""
        if self.init_lora_weights in PART_OF_W:
            return "dora of a part of W" if self.use_dora else "part of W"
        return "dora" if self.use_dora else "lora"

    def check_target(self, path: str, base: Linear) -> None:
        """Raise ValueError if this Linear cannot be adapted so: its rank, or a column of zeros,
        which has no direction for DoRA to keep."""
        r, (d_in, d_out) = self.rank_and_scale(path)[0], base.weight.shape
        if r > min(d_in, d_out):
            raise UsageError(
                f"r={r} is more than {path} ({d_in} x {d_out}) can use: its rank is at most "
                f"{min(d_in, d_out)}; lower r, or give this module its own rank in rank_pattern"
            )
        if self.use_dora and not base.weight.data.any(axis=0).all():
            raise UsageError(f"{path} has a column of zeros, which DoRA cannot scale; exclude it")


def _require_alpha(**alphas: Any) -> None:
    require_positive(**alphas)
    require_between(0, _LARGEST_ALPHA, **alphas)


def _by_path(option: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict | None) or not all(isinstance(key, str) for key in given or ()):
        raise UsageError(f"{option} must be a dict by path, got {brief(given)}")
    return dict(given or {})


def _names(option: str, given: Any, default: Patterns = ()) -> Patterns:
    if given is None or isinstance(given, str):
        return default if given is None else given
    listed = isinstance(given, Iterable) and not isinstance(given, Mapping)
    names = tuple(given) if listed else (given,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{option} must be a name or a list of names, got {brief(given)}")
    return names


def _first_match(patterns: dict[str, Any], path: str, default: Any) -> Any:
    hits = (value for pattern, value in patterns.items() if match_end(pattern, path))
    return next(hits, default)
