"""What an adapter's files say without its base: ranks, scales, how large ΔW is and in what shape.

‖ΔW‖ and the singular values of ΔW = s A B come from A and B alone (combining/low_rank.py), so that
the adapter of a model of 7 billion numbers is read in seconds. Any LoRA that PEFT wrote will do,
whatever its model: what minilora could not compute with is said in a warning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minilora.analysis.spectrum import effective_rank_of, k90_of, stable_rank_of
from minilora.combining.low_rank import svd_of_product
from minilora.hub.peft_layout import without_wrappers
from minilora.hub.peft_options import read_options, unsupported
from minilora.hub.safetensors_files import (
    ADAPTER_FILES,
    Arrays,
    first_two,
)
from minilora.hub.saves import read_adapter_files
from minilora.lora_config import LoraConfig
from minilora.system.errors import UsageError
from minilora.system.files import usable_path

_FACTOR = re.compile(r"(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?")
_USUAL_SCALES = (0.1, 10.0)


@dataclass(frozen=True)
class Inspected:
    """ΔW = s A B of one module. Of one that holds NaN or infinity there are no singular values."""

    path: str
    d_in: int
    d_out: int
    r: int
    s: float
    singular_values: tuple[float, ...]  # of ΔW, largest first: at most r

    @property
    def kind(self) -> str:
        """Its path within its layer: "self_attn.q_proj" in each of them."""
        return re.split(r"\.\d+\.|^\d+\.", self.path)[-1]

    @cached_property
    def norm(self) -> float:
        """‖ΔW‖_F, or NaN."""
        return math.hypot(*self.singular_values) if self.singular_values else math.nan

    @property
    def effective_rank(self) -> float:
        return self._of(effective_rank_of)

    @property
    def stable_rank(self) -> float:
        return self._of(stable_rank_of)

    @property
    def k90(self) -> float:
        """How many directions hold 90 % of ‖ΔW‖², or NaN."""
        return self._of(k90_of)

    def _of(self, measure: Any) -> float:
        S = np.array(self.singular_values)
        return measure(S) if S.size else math.nan


@dataclass(frozen=True)
class Inspection:
    """What inspect_adapter found in a folder."""

    folder: str
    base: str | None  # the model it was trained on, if that was recorded
    bytes: int  # of both files
    numbers: int  # in adapter_model.safetensors
    config: LoraConfig
    modules: tuple[Inspected, ...]
    whole: dict[str, int]  # what was trained whole (biases, modules_to_save): numbers, by name
    warnings: tuple[str, ...]

    @cached_property
    def squared_norm(self) -> float:
        """Σ ‖ΔW‖² of all modules without NaN."""
        return sum(one.norm**2 for one in self.modules if one.singular_values)

    def by_kind(self) -> dict[str, list[Inspected]]:
        """The modules of each kind, the kind that learned most first."""
        kinds: dict[str, list[Inspected]] = {}
        for one in self.modules:
            kinds.setdefault(one.kind, []).append(one)
        return dict(sorted(kinds.items(), key=lambda item: -self.share(*item[1])))

    def share(self, *modules: Inspected) -> float:
        """How much of squared_norm is in these modules, in [0, 1]."""
        part = sum(one.norm**2 for one in modules if one.singular_values)
        return part / self.squared_norm if self.squared_norm else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, which has no NaN: None stands for it."""
        config = self.config
        return {
            "folder": self.folder,
            "base": self.base,
            "bytes": self.bytes,
            "numbers": self.numbers,
            "use_rslora": config.use_rslora,
            "use_dora": config.use_dora,
            "bias": config.bias,
            "delta_norm": _number(math.sqrt(self.squared_norm)),
            "modules": [
                {
                    "path": one.path,
                    "d_in": one.d_in,
                    "d_out": one.d_out,
                    "r": one.r,
                    "s": one.s,
                    "delta_norm": _number(one.norm),
                    "share": _number(self.share(one)),
                    "effective_rank": _number(one.effective_rank),
                    "stable_rank": _number(one.stable_rank),
                    "k90": _number(one.k90),
                    "singular_values": [_number(value) for value in one.singular_values],
                }
                for one in self.modules
            ],
            "trained_whole": self.whole,
            "warnings": list(self.warnings),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def inspect_adapter(folder: str | Path) -> Inspection:
    """Read an adapter that PEFT or minilora wrote, without its base model.

    Raises FileNotFoundError, or ValueError, for files that are missing or damaged, that hold
    another method than LoRA, or whose A and B do not fit each other.
    """
    folder = usable_path(folder)
    written, tensors = read_adapter_files(folder)
    strange = unsupported(written)
    with _naming(folder):
        config = read_options({key: v for key, v in written.items() if key not in strange})
    weights = folder / ADAPTER_FILES[1]
    found = without_wrappers({key: one.numbers(finite=False) for key, one in tensors.items()})
    factors = _factors(found, weights)
    with _naming(folder):
        modules = tuple(_inspected(path, A, B, config) for path, (A, B) in factors.items())
    used = ("lora_A", "lora_B", "lora_embedding_", "lora_magnitude_vector")
    whole = {
        key: array.size for key, array in found.items() if not any(f".{u}" in key for u in used)
    }
    base = written.get("base_model_name_or_path")
    return Inspection(
        folder=str(folder),
        base=base if isinstance(base, str) and base else None,
        bytes=sum((folder / name).stat().st_size for name in ADAPTER_FILES),
        numbers=sum(array.size for array in found.values()),
        config=config,
        modules=modules,
        whole=whole,
        warnings=tuple(_warnings(config, strange, modules, found, whole)),
    )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Within it, a ValueError says that the adapter in this folder is meant."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"cannot inspect the adapter in {folder}: {error}") from None


def _factors(found: Arrays, file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A (d_in, r) and B (r, d_out) by path, in the order of layers. Convolutions count as the
    matrices that they are made of."""
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, array in found.items():
        if (match := _FACTOR.fullmatch(key)) and array.ndim >= 2 and array.size:
            halves.setdefault(match[1], {})[match[2]] = array
    factors = {}
    for path in sorted(halves, key=_in_order):
        A, B = halves[path].get("A"), halves[path].get("B")
        if A is None or B is None:
            lacks = "lora_A" if A is None else "lora_B"
            raise UsageError(f"{path} in {file} has no {lacks}: download or save it again")
        A, B = A.reshape(len(A), -1).T, B.reshape(len(B), -1).T  # PEFT keeps them transposed
        if A.shape[1] != len(B):
            raise UsageError(
                f"{path} in {file} has an A of rank {A.shape[1]} and a B of rank {len(B)}: "
                "download or save it again"
            )
        factors[path] = A, B
    if not factors:
        raise UsageError(f"{file} holds no lora_A and lora_B: it was not saved as LoRA")
    return factors


def _in_order(path: str) -> list[tuple[int, str]]:
    """layers.2 comes before layers.10."""
    words = path.split(".")
    return [(int(w), "") if w.isdecimal() and len(w) < 10 else (-1, w) for w in words]


def _inspected(path: str, A: np.ndarray, B: np.ndarray, config: LoraConfig) -> Inspected:
    s, S = config.rank_and_scale(path)[1], np.zeros(0)
    if np.isfinite(A).all() and np.isfinite(B).all():
        S = s * svd_of_product(A, B)[1]
    return Inspected(path, len(A), B.shape[1], len(B), s, tuple(map(float, S)))


def _warnings(
    config: LoraConfig,
    strange: Mapping[str, str],
    modules: tuple[Inspected, ...],
    found: Arrays,
    whole: Mapping[str, int],
) -> list[str]:
    """What someone should know before using this adapter, a sentence each."""
    said = [f"{sentence}. The numbers here are of A and B alone" for sentence in strange.values()]
    if damaged := [key for key, array in found.items() if not np.isfinite(array).all()]:
        said.append(f"NaN or infinity in {first_two(damaged)}: use an earlier checkpoint")
    measured = [one for one in modules if one.singular_values]
    zero = [one.path for one in measured if one.norm == 0]
    if zero and len(zero) == len(modules):
        said.append("ΔW is zero everywhere: this adapter has not been trained")
    elif zero:
        said.append(f"ΔW is zero in {len(zero)} of {len(modules)} modules: {first_two(zero)}")
    for s in dict.fromkeys(one.s for one in modules):
        if not _USUAL_SCALES[0] <= s <= _USUAL_SCALES[1]:
            said.append(f"s = {s:g} is unusual, {_rule(config)}: is lora_alpha what was meant?")
    said += _of_ranks(config, modules)
    if config.use_dora:
        said.append(
            "DoRA also scales the columns of W + s A B; how much that changes only the base could "
            "tell, and the numbers here are of s A B alone"
        )
    if whole:
        n, total = sum(whole.values()), sum(array.size for array in found.values())
        said.append(
            f"{first_two(list(whole))} trained whole: {n:,} numbers, {n / total:.0%} of all"
        )
    return said


def _of_ranks(config: LoraConfig, modules: tuple[Inspected, ...]) -> list[str]:
    said = []
    for one in modules:
        if one.r != (expected := config.rank_and_scale(one.path)[0]):
            said.append(f"{one.path} has rank {one.r} and the configuration says {expected}")
            break
    if useless := [one.path for one in modules if one.r > min(one.d_in, one.d_out)]:
        said.append(f"r is more than {first_two(useless)} can have as its rank")
    trained = [one for one in modules if one.singular_values and one.norm > 0]
    used = [one.effective_rank / one.r for one in trained if one.r >= 4]
    if used and np.mean(used) < 0.25:
        said.append(
            f"the rank is hardly used: the effective rank is {np.mean(used):.0%} of r on average, "
            f"and r = {max(one.k90 for one in trained)} would hold 90 % of every ‖ΔW‖²"
        )
    return said


def _rule(config: LoraConfig) -> str:
    return "alpha / √r" if config.use_rslora else "alpha / r"
