"""Where each adapter lives in PEFT's files: LoRA's A and B, and DoRA's m.

We write ΔW = s A B with A (d_in, r) and B (r, d_out). The paper and PEFT write ΔW = s B A with
lora_A.weight (r, d_in) and lora_B.weight (d_out, r). The roles of A and B are the same, and so are
the numbers, transposed: lora_A.weight = A.T and lora_B.weight = B.T, for (A B).T = B.T A.T.
DoRA's m is lora_magnitude_vector (d_out). hf_layout.py knows the paths; where GPT-2 fuses q, k and
v into one c_attn, their adapters become one.
Sources: utils/save_and_load.py and tuners/lora/model.py in PEFT 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilora.hub.hf_layout import Layout
from minilora.hub.safetensors_files import Arrays, renamed
from minilora.lora_config import LoraConfig
from minilora.system.errors import UsageError

_PREFIX = "base_model.model."  # of every key: PEFT wraps the model twice


@dataclass(frozen=True)
class Factors:
    """ΔW = scale A B of one Linear: A (d_in, r), B (r, d_out); with DoRA also m (d_out,)."""

    A: np.ndarray
    B: np.ndarray
    scale: float
    m: np.ndarray | None = None


def to_peft(factors: Mapping[str, Factors], whole: Arrays) -> Arrays:
    """The tensors of adapter_model.safetensors, from adapters and from what trains whole (biases
    and weights, by their keys in the Hugging Face model)."""
    tensors: Arrays = {}
    for path, f in factors.items():
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = f.A.T, f.B.T
        if f.m is not None:
            tensors[f"{path}.lora_magnitude_vector"] = f.m
    for key, array in whole.items():
        path, _, kind = key.rpartition(".")
        tensors[f"{path}.base_layer.{kind}" if path in factors else key] = array
    return {_PREFIX + key: array for key, array in tensors.items()}


def without_wrappers(tensors: Arrays) -> Arrays:
    """PEFT's keys as paths in the Hugging Face model. Where bias="all" meets modules_to_save, PEFT
    writes a bias three times: as trained, again in its wrapper, and as it was before."""
    trained = {key: array for key, array in tensors.items() if ".original_module." not in key}
    wrapper = re.compile(r"\.(base_layer|modules_to_save)\.")
    return renamed(trained, lambda key: wrapper.sub(".", key.removeprefix(_PREFIX)))


def factors_in(found: Arrays, peft: LoraConfig) -> dict[str, Factors]:
    """The adapters that the tensors hold, by path."""
    factors = {}
    for path in adapted_paths(found):
        A, B = found[f"{path}.lora_A.weight"].T, found[f"{path}.lora_B.weight"].T
        m = found.get(f"{path}.lora_magnitude_vector")
        factors[path] = Factors(A, B, peft.rank_and_scale(path)[1], m)
    return factors


def adapted_paths(found: Collection[str]) -> list[str]:
    """The paths of modules for which there is an A or a B."""
    ends = [re.fullmatch(r"(.+)\.lora_[AB]\.weight", key) for key in found]
    return sorted({end[1] for end in ends if end})


def adapters_to_hf(
    layers: Mapping[str, Factors], layout: Layout, base: Arrays
) -> dict[str, Factors]:
    """The factors of our layers, for the modules of the other layout. `base`: its weights."""
    parts: dict[str, dict[int | None, Factors]] = {}
    for path, f in layers.items():
        parts.setdefault(layout[path].path, {})[layout[path].third] = f
    return {
        path: p[None] if None in p else _fuse_qkv(p, base[f"{path}.weight"])
        for path, p in parts.items()
    }


def adapters_from_hf(
    factors: Mapping[str, Factors], layout: Layout, base: Arrays, keep: Collection[str] = ()
) -> dict[str, Factors]:
    """The inverse of adapters_to_hf. `keep`: layers to be adapted even if their ΔW is zero. Of the
    base only the weights of DoRA's c_attn are needed."""
    layers = {}
    for ours, theirs in layout.items():
        if (f := factors.get(theirs.path)) is not None:
            W = base.get(f"{theirs.path}.weight")
            part = f if theirs.third is None else _third_of(f, theirs.third, W, ours in keep)
            if part is not None:
                layers[ours] = _within_full_rank(part)
    return layers


def _fuse_qkv(parts: Mapping[Any, Factors], W: np.ndarray) -> Factors:
    """One adapter of c_attn (d, 3d) from those of q (0), k (1) and v (2); some may be missing.

    [x Aq, x Ak, x Av] times a block-diagonal B gives each third its own ΔW: the ranks add up.
    Adapters that share their A (as those have that were split) need no blocks, and keep their rank.
    DoRA's m belongs to columns, so its thirds stand side by side too, with ‖W‖ for one that is
    missing. Raises ValueError for a column of zeros: PEFT would make NaN of it, adapted or not.
    """
    scale = max((part.scale for part in parts.values()), key=abs)
    As = [part.A for part in parts.values()]
    shared = all(np.array_equal(A, As[0]) for A in As)
    A = As[0] if shared else np.concatenate(As, axis=1)  # (d, r) each -> (d, R)
    d = len(A)
    B = np.zeros((A.shape[1], 3 * d), A.dtype)
    m = None if any(part.m is None for part in parts.values()) else np.linalg.norm(W, axis=0)
    if m is not None and np.isnan(m).any():
        raise UsageError("DoRA divides by ‖W‖ of c_attn, and here W is kept in few bits")
    if m is not None and not m.all():
        raise UsageError("DoRA divides by ‖W‖, and a column of c_attn is all zeros; use_dora=False")
    row = 0
    for third, part in parts.items():
        r, columns = len(part.B), slice(third * d, (third + 1) * d)
        B[row : row + r, columns] = part.B * (part.scale / (scale or 1))
        row += 0 if shared else r
        if m is not None:
            m[columns] = part.m
    return Factors(A, B, scale, m)


def _third_of(fused: Factors, third: int, W: np.ndarray | None, keep: bool) -> Factors | None:
    """The adapter of q (0), k (1) or v (2) in one of c_attn: the same A, and a third of B and m.

    Undoes _fuse_qkv: a row of B that is zero in this third and not in another adds nothing here,
    and is left out. Where no row is left, and m is ‖W‖ up to rounding, the answer is None, or
    (keep) all of them after all.
    """
    B = np.split(fused.B, 3, axis=1)[third]  # (R, 3d) -> (R, d)
    rows = B.any(axis=1) | ~fused.B.any(axis=1)  # (R,); a row that is zero everywhere is untrained
    m = None
    if fused.m is not None and W is not None:
        m = np.split(fused.m, 3)[third]  # (3d,) -> (d,)
        norms = np.split(np.linalg.norm(W, axis=0), 3)[third]
        keep = keep or not np.allclose(m, norms, rtol=1e-6, atol=0)
    if not rows.any():
        return Factors(fused.A, B, fused.scale, m) if keep else None
    return Factors(fused.A[:, rows], B[rows], fused.scale, m)


def _within_full_rank(f: Factors) -> Factors:
    """The same A B with no more rank than its matrix can have. PEFT allows more, which is of no
    use, and a c_attn adapter can have it after _fuse_qkv; then A B itself is one of the factors."""
    (d_in, r), d_out = f.A.shape, f.B.shape[1]
    if r <= min(d_in, d_out):
        return f
    identity = np.eye(min(d_in, d_out), dtype=f.A.dtype)
    A, B = (identity, f.A @ f.B) if d_in <= d_out else (f.A @ f.B, identity)
    return replace(f, A=A, B=B)
