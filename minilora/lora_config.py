"""What to adapt, and how: the options of LoRA under PEFT's names, and what they select in a model.

Kept apart from lora.py so that there the method can be read without the bookkeeping.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from minilora.lora_init import INITS, PART_OF_W
from minilora.nn import Embedding, Linear, Module, Parameter
from minilora.system.errors import UsageError

Patterns = str | Sequence[str]

DEFAULT = "default"  # the name of an adapter that was given none


@dataclass(frozen=True)
class LoraConfig:
    """PEFT's options, with PEFT's meaning and defaults.

    target_modules, exclude_modules: a list matches the ends of paths ("q_proj" is every q_proj), a
        string is a regular expression for a whole path, "all-linear" every Linear but the head.
        (PEFT's default depends on the model; here it is the paper's choice, q and v.)
    lora_dropout: probability of dropping an input of the adapter, in [0, 1).
    bias: which biases train too: "none", "all", or "lora_only" (those of the adapted Linears).
    use_rslora: s = lora_alpha / sqrt(r) instead of lora_alpha / r (Kalajdzievski 2023).
    use_dora: train the length of every column of W apart from its direction: W' = m V / ‖V‖ by
        columns, V = W + s A B, m starting as ‖W‖ (Liu et al. 2024).
    init_lora_weights: True, "gaussian", "pissa" or "olora": see lora_init.py. False: B random too,
        so that the adapted model does not start at the base.
    rank_pattern, alpha_pattern: exceptions to r and lora_alpha, by regular expression of a path's
        end.
    layers_to_transform: the numbers of the layers to adapt (default: all).
    modules_to_save: modules trained whole, in a copy that belongs to the adapter, such as "norm".

    Raises ValueError for values outside their range.
    """

    r: int = 8
    lora_alpha: float = 8
    target_modules: Patterns = ("q_proj", "v_proj")
    exclude_modules: Patterns = ()
    lora_dropout: float = 0.0
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers_to_transform: int | Sequence[int] | None = None
    modules_to_save: Sequence[str] = ()

    def __post_init__(self) -> None:
        lowest = min([self.r, *self.rank_pattern.values()])
        if lowest < 1:
            raise UsageError(f"the rank must be at least 1, got {lowest}: r=0 would train nothing")
        if self.bias not in ("none", "all", "lora_only"):
            raise UsageError(f'bias must be "none", "all" or "lora_only", got {self.bias!r}')
        if self.init_lora_weights not in INITS:
            raise UsageError(f"init_lora_weights must be one of {INITS}")
        if self.init_lora_weights in PART_OF_W and self._lowest_alpha() <= 0:
            raise UsageError(f"{self.init_lora_weights} needs a lora_alpha above 0")
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout must lie in [0, 1), got {self.lora_dropout}")
        texts = [p for p in (self.target_modules, self.exclude_modules) if isinstance(p, str)]
        for text in [*texts, *self.rank_pattern, *self.alpha_pattern]:
            try:
                re.compile(text)
            except re.error as error:
                raise UsageError(f"{text!r} is not a regular expression: {error}") from None

    def _lowest_alpha(self) -> float:
        return min([self.lora_alpha, *self.alpha_pattern.values()])

    def rank_and_scale(self, path: str) -> tuple[int, float]:
        """r and s of the adapter at a path: ΔW = s A B."""
        r = _first_match(self.rank_pattern, path, self.r)
        alpha = _first_match(self.alpha_pattern, path, self.lora_alpha)
        return r, float(alpha / (math.sqrt(r) if self.use_rslora else r))

    @property
    def kind(self) -> str:
        """Which of lora.KINDS an adapter of this configuration is."""
        if self.init_lora_weights in PART_OF_W:
            return "dora of a part of W" if self.use_dora else "part of W"
        return "dora" if self.use_dora else "lora"

    def _check_target(self, path: str, base: Linear) -> None:
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


def _first_match(pattern: dict[str, Any], path: str, default: Any) -> Any:
    hits = (value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", path))
    return next(hits, default)


def plain_path(path: str) -> str:
    """The path in the plain model of a module or parameter that something wraps as its `base`."""
    return ".".join(word for word in path.split(".") if word != "base")


def base_modules(model: Module) -> dict[str, Module]:
    """The plain model's modules by path, without wrappers and what these put beside their base."""
    found: dict[str, Module] = {}

    def visit(path: str, module: Module) -> None:
        while isinstance(base := vars(module).get("base"), Module):
            module = base
        found[path] = module
        for name, child in module.named_children():
            visit(f"{path}.{name}" if path else name, child)

    visit("", model)
    return found


def find_targets(model: Module, config: LoraConfig) -> dict[str, Linear]:
    """The Linears that `config` adapts, by their path in the plain model.

    Raises ValueError, which says what there is to choose from, for targets that match nothing, and
    for a rank that a matrix cannot have.
    """
    modules = base_modules(model)
    linears = {path: m for path, m in modules.items() if isinstance(m, Linear)}
    wanted = config.target_modules
    if wanted == "all-linear":
        targets = {path: m for path, m in linears.items() if path != "head"}
    else:
        unmatched = _unmatched(wanted, list(linears))
        if unmatched or not wanted:
            _explain_no_match(wanted, unmatched, modules, linears)
        targets = {path: m for path, m in linears.items() if _matches(path, wanted)}
    targets = {p: m for p, m in targets.items() if not _matches(p, config.exclude_modules)}
    if config.layers_to_transform is not None:
        layers = config.layers_to_transform
        numbers = [layers] if isinstance(layers, int) else list(layers)
        targets = {p: m for p, m in targets.items() if _layer_number(p) in numbers}
    for path, linear in targets.items():
        config._check_target(path, linear)
    if not targets:
        raise UsageError(
            f"nothing is left to adapt of target_modules={wanted!r} after exclude_modules="
            f"{config.exclude_modules!r} and layers_to_transform={config.layers_to_transform}"
        )
    return targets


def _unmatched(patterns: Patterns, paths: list[str]) -> list[str]:
    if isinstance(patterns, str):
        return [] if any(_matches(path, patterns) for path in paths) else [patterns]
    return [one for one in patterns if not any(_matches(path, [one]) for path in paths)]


def _matches(path: str, patterns: Patterns) -> bool:
    if isinstance(patterns, str):
        return re.fullmatch(patterns, path) is not None
    return any(path == one or path.endswith(f".{one}") for one in patterns)


def _layer_number(path: str) -> int | None:
    found = re.search(r"\blayers\.(\d+)\.", path)
    return int(found[1]) if found else None


def _explain_no_match(
    wanted: Patterns, unmatched: list[str], modules: dict[str, Module], linears: dict[str, Linear]
) -> None:
    names = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in linears))
    for path, module in modules.items():
        if isinstance(module, Embedding) and _matches(path, unmatched):
            tied = " and tied to the output head, so that an update would change both"
            is_tied = path == "tok_embed" and "head" not in modules
            raise UsageError(
                f"{path} is an embedding{tied if is_tied else ''}; LoRA here adapts "
                f"Linear layers: {names}. To train it, tune the whole model"
            )
    if isinstance(wanted, str):
        raise UsageError(
            f"target_modules={wanted!r}, a string, is a regular expression for a whole path and "
            f"matches no Linear; for a name use a list: [{wanted!r}]. This model has: {names}"
        )
    raise UsageError(f"target_modules={unmatched!r} matches no Linear; this model has: {names}")


@dataclass
class CopiedParameter:
    """A parameter that an adapter trains whole, in a copy that takes the original's place."""

    owner: Module
    attribute: str
    original: Parameter
    copy: Parameter


@dataclass
class Adapter:
    """What a model knows of one adapter beside the layers' A and B."""

    config: LoraConfig
    copies: list[CopiedParameter]  # of biases and modules_to_save


def check_new_name(name: str, taken: Collection[str]) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise UsageError(f"an adapter's name is a word without a dot, got {name!r}")
    if name in taken:
        raise UsageError(f"this model has an adapter {name!r} already: take another name")


def parameters_to_copy(
    model: Module, config: LoraConfig, targets: dict[str, Linear]
) -> list[CopiedParameter]:
    """Copies of the biases and modules that `config` wants trained beside A and B."""
    modules = list(base_modules(model).values())
    biased: dict[str, Sequence[Module]]
    biased = {"none": [], "lora_only": list(targets.values()), "all": modules}
    copied = {(m, "bias") for m in biased[config.bias] if vars(m).get("bias") is not None}
    for module in _modules_to_save(model, config, targets):
        copied |= {(module, name) for name, p in vars(module).items() if isinstance(p, Parameter)}
    return [
        CopiedParameter(m, name, p, Parameter(p.data.copy()))
        for m in modules
        for name, p in vars(m).items()
        if (m, name) in copied
    ]


def _modules_to_save(model: Module, config: LoraConfig, targets: dict[str, Linear]) -> list[Module]:
    """The modules that config.modules_to_save names, with all inside them."""
    modules = base_modules(model)
    found = []
    for name in config.modules_to_save:
        paths = [path for path in modules if path and _matches(path, [name])]
        if not paths:
            raise UsageError(f"modules_to_save={name!r} is not in this model; see named_modules()")
        if "tok_embed" in paths and "head" not in modules:
            raise UsageError(
                f"modules_to_save={name!r} is an embedding to which the head is tied: "
                "training a copy would change the head too; use tie_embeddings=False for that"
            )
        if any(f"{target}.".startswith(f"{path}.") for path in paths for target in targets):
            raise UsageError(
                f"{name!r} is, or holds, a target of LoRA: take it out of modules_to_save or out "
                "of target_modules"
            )
        found += [m for p, m in modules.items() if any(f"{p}.".startswith(f"{q}.") for q in paths)]
    return found
