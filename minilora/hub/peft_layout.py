"""Where each adapter lives in PEFT's files, and what PEFT's options say.

hf_layout.py does this for the model; here are LoRA's A and B and DoRA's m, which follow GPT-2's
fused q, k and v, and the options of adapter_config.json, with which PEFT must come to the same
scale everywhere. Sources: tuners_utils.py, lora/config.py and lora/model.py in PEFT 0.21.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilora.hub.hf_layout import Layout
from minilora.hub.safetensors_files import Arrays, first_two
from minilora.lora import LoraLinear
from minilora.lora_config import LoraConfig
from minilora.lora_init import PART_OF_W
from minilora.system.errors import UsageError


@dataclass(frozen=True)
class Factors:
    """ΔW = scale A B of one Linear: A (d_in, r), B (r, d_out); with DoRA also m (d_out,)."""

    A: np.ndarray
    B: np.ndarray
    scale: float
    m: np.ndarray | None = None


def factors_of(layer: LoraLinear, name: str, W: np.ndarray) -> Factors:
    """One adapter of a Linear as PEFT adds it to the whole of W (d_in, d_out).

    Raises ValueError if it took a part out of W, and W is no longer the one it was taken from.
    """
    adapter = layer.adapters[name]
    return Factors(scale=adapter.s, **adapter.factors(W))


def adapters_to_hf(
    layers: Mapping[str, Factors], layout: Layout, base: Arrays
) -> dict[str, Factors]:
    """The factors of our layers by path, for the modules of the other layout, whose base is
    `base`."""
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
    """The inverse of adapters_to_hf. `keep`: layers to be adapted even if their ΔW is zero."""
    layers = {}
    for ours, theirs in layout.items():
        if (f := factors.get(theirs.path)) is not None:
            W = base[f"{theirs.path}.weight"]
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


def _third_of(fused: Factors, third: int, W: np.ndarray, keep: bool) -> Factors | None:
    """The adapter of q (0), k (1) or v (2) in one of c_attn: the same A, and a third of B and m.

    Undoes _fuse_qkv: a row of B that is zero in this third and not in another adds nothing here,
    and is left out. Where no row is left, and m is ‖W‖ up to rounding, the answer is None, or
    (keep) all of them after all.
    """
    B, m = np.split(fused.B, 3, axis=1)[third], None  # (R, 3d) -> (R, d)
    rows = B.any(axis=1) | ~fused.B.any(axis=1)  # (R,); a row that is zero everywhere is untrained
    if fused.m is not None:
        m, norms = (np.split(a, 3)[third] for a in (fused.m, np.linalg.norm(W, axis=0)))  # (d,)
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


def _rule_and_exceptions(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The most common value, and the others by the ends of their paths (rank_pattern)."""
    common = Counter(values.values()).most_common(1)[0][0]
    exceptions: dict[str, Any] = {}
    for value in dict.fromkeys(v for v in values.values() if v != common):
        paths = [path for path, v in values.items() if v == value]
        exceptions |= dict.fromkeys(shortest_ends(paths, values), value)
    return common, exceptions


def peft_options(
    config: LoraConfig, factors: Mapping[str, Factors], whole: set[str], layout: Layout
) -> dict[str, Any]:
    """The content of adapter_config.json, with which PEFT computes the same scale everywhere."""
    r, rank_pattern = _rule_and_exceptions({path: len(f.B) for path, f in factors.items()})
    alphas = {path: _alpha(f, config.use_rslora) for path, f in factors.items()}
    lora_alpha, alpha_pattern = _rule_and_exceptions(alphas)
    everything = {theirs.path for theirs in layout.values()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": r,
        "lora_alpha": lora_alpha,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "target_modules": shortest_ends(factors, everything),
        "modules_to_save": shortest_ends(whole, everything, str.endswith) or None,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "init_lora_weights": config.init_lora_weights in PART_OF_W or config.init_lora_weights,
    }


def _alpha(f: Factors, use_rslora: bool) -> float:
    """The alpha that gives this scale at this rank, as a round number if that gives it exactly."""
    divisor = math.sqrt(len(f.B)) if use_rslora else len(f.B)
    alpha = f.scale * divisor
    if not math.isfinite(alpha):
        raise UsageError(f"an adapter's scale is {f.scale}; change lora_alpha to a finite number")
    return next((a for a in (round(alpha), round(alpha, 6)) if a / divisor == f.scale), alpha)


def our_options(peft: LoraConfig, layers: Mapping[str, Factors], whole: tuple) -> LoraConfig:
    """The LoraConfig with which we train on, every layer named in full."""
    r, rank_pattern = _rule_and_exceptions({path: len(f.B) for path, f in layers.items()})
    alphas = {path: _alpha(f, peft.use_rslora) for path, f in layers.items()}
    lora_alpha, alpha_pattern = _rule_and_exceptions(alphas)
    return replace(
        peft,
        r=r,
        lora_alpha=lora_alpha,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        target_modules=tuple(layers),
        modules_to_save=whole,
    )


# Keys of adapter_config.json: read here; of no matter once an adapter is trained; and those under
# which PEFT computes something else than x W + s x A B.
_READ = [
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "lora_dropout", "bias",
    "use_rslora", "use_dora", "init_lora_weights", "modules_to_save",
]  # fmt: skip
_HARMLESS = [
    "task_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping",
    "peft_version", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "fan_in_fan_out", "megatron_config", "megatron_core", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size",
    "runtime_config", "ensure_weight_tying",
]  # fmt: skip
_REFUSED = [
    "use_qalora", "lora_bias", "layer_replication", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "monteclora_config", "use_bdlora",
    "arrow_config", "kasa_config",
]  # fmt: skip
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # init_lora_weights that alter W


def read_options(written: Mapping[str, Any]) -> LoraConfig:
    """What adapter_config.json says, with PEFT's defaults; paths in it are still PEFT's.

    Raises ValueError for what would make PEFT compute something else, warns of unknown keys.
    """
    if written.get("peft_type") != "LORA":
        raise UsageError(f"peft_type={written.get('peft_type')!r} is not supported, only 'LORA'")
    for key in _REFUSED:
        if written.get(key):
            raise UsageError(
                f"{key}={written[key]!r} is not supported: LoRA and DoRA are, without it"
            )
    init = written.get("init_lora_weights", True)
    init = init.lower() if isinstance(init, str) else init  # PEFT takes "OLoRA" too
    if str(init).startswith(_CHANGES_BASE):
        raise UsageError(
            f"init_lora_weights={init!r} has changed the base model's weights; convert the adapter "
            "with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    words = written.get("modules_to_save") or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"modules_to_save={words!r} has a wrong type: it must be a list of names")
    known = {*_READ, *_HARMLESS, *_REFUSED}
    if unknown := sorted(written.keys() - known):
        warnings.warn(f"adapter_config.json: ignored {first_two(unknown)}", stacklevel=3)
    try:
        options = LoraConfig(
            r=written.get("r", 8),
            lora_alpha=written.get("lora_alpha", 8),
            rank_pattern=written.get("rank_pattern") or {},
            alpha_pattern=written.get("alpha_pattern") or {},
            lora_dropout=written.get("lora_dropout", 0.0),
            bias=written.get("bias", "none"),
            use_rslora=written.get("use_rslora", False),
            use_dora=bool(written.get("use_dora")),
            init_lora_weights=init if init in (False, "gaussian") else True,
            modules_to_save=tuple(words),
        )
        finite = map(math.isfinite, [options.lora_alpha, *options.alpha_pattern.values()])
        if not all(finite):
            raise UsageError("lora_alpha and alpha_pattern must be finite")
    except (TypeError, AttributeError) as error:
        raise UsageError(f"an option in adapter_config.json has a wrong type: {error}") from None
    return options
