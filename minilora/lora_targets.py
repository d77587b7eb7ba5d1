"""What an adapter reaches in a model: the Linears it adapts, the parameters it trains whole.

Adapters and other methods wrap modules: the wrapper stands in the place of what it holds as its
`base`. Here a model is seen as it was before that, so that all options name modules of the plain
model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from minilora.lora_config import LoraConfig, Patterns
from minilora.nn import Embedding, Linear, Module, Parameter
from minilora.path_patterns import match, match_end
from minilora.system.errors import UsageError


def plain_path(path: str) -> str:
    """The path in the plain model of a module or parameter that something wraps as its `base`."""
    return ".".join(word for word in path.split(".") if word != "base")


def require_model(model: Module) -> Module:
    if not isinstance(model, Module):
        raise TypeError(f"expected a model, got {type(model).__name__}")
    return model


def base_modules(model: Module) -> dict[str, Module]:
    """The plain model's modules by path, without wrappers and what these put beside their base."""
    found: dict[str, Module] = {}
    seen = set()

    def visit(path: str, module: Module) -> None:
        while isinstance(base := vars(module).get("base"), Module):
            module = base
        if id(module) not in seen:
            seen.add(id(module))
            found[path] = module
            for name, child in module.named_children():
                visit(f"{path}.{name}" if path else name, child)

    visit("", require_model(model))
    return found


def find_targets(model: Module, config: LoraConfig) -> dict[str, Linear]:
    """The Linears that `config` adapts, by their path in the plain model.

    Raises ValueError, which says what there is to choose from, for whatever matches nothing, and
    for a rank that a matrix cannot have.
    """
    if not isinstance(config, LoraConfig):
        raise TypeError(f"config must be a minilora.LoraConfig, got {type(config).__name__}")
    modules = base_modules(model)
    linears = {path: m for path, m in modules.items() if isinstance(m, Linear)}
    if "" in linears:
        raise UsageError("LoRA replaces a Linear in the module that holds it, and none holds this")
    wanted = config.target_modules
    if wanted == "all-linear":
        targets = {path: m for path, m in linears.items() if path != "head"}
    else:
        unmatched = _unmatched(wanted, list(linears))
        if unmatched or not wanted:
            _explain_no_match(wanted, unmatched, modules, linears)
        targets = {path: m for path, m in linears.items() if match(wanted, path)}
    if unmatched := _unmatched(config.exclude_modules, list(linears)):
        raise UsageError(f"exclude_modules={unmatched!r} matches no Linear; {_choice(linears)}")
    targets = {p: m for p, m in targets.items() if not match(config.exclude_modules, p)}
    numbers = config.layer_numbers()
    if numbers is not None:
        layers = {_layer_number(path) for path in linears}
        if missing := [number for number in numbers if number not in layers]:
            raise UsageError(f"layers_to_transform: this model has no layer {missing[0]}")
        in_full = () if isinstance(wanted, str) else wanted  # these paths are taken, as in PEFT
        targets = {p: m for p, m in targets.items() if p in in_full or _layer_number(p) in numbers}
    for path, linear in targets.items():
        config.check_target(path, linear)
    if not targets:
        raise UsageError(
            f"nothing is left to adapt of target_modules={wanted!r} after exclude_modules="
            f"{config.exclude_modules!r} and layers_to_transform={config.layers_to_transform}"
        )
    _check_patterns(config, list(targets))
    return targets


def _check_patterns(config: LoraConfig, targets: list[str]) -> None:
    """Raise ValueError for an exception to r or lora_alpha that is none, as nothing matches it."""
    for option in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, option):
            if not any(match_end(pattern, path) for path in targets):
                raise UsageError(
                    f"{option}={pattern!r} matches nothing that is adapted, such as {targets[0]}"
                )


def _unmatched(patterns: Patterns, paths: list[str]) -> list[str]:
    if isinstance(patterns, str):
        return [] if any(match(patterns, path) for path in paths) else [patterns]
    return [one for one in patterns if not any(match([one], path) for path in paths)]


def _layer_number(path: str) -> int | None:
    found = re.search(r"\blayers\.(\d+)\.", path)
    return int(found[1]) if found else None


def _explain_no_match(
    wanted: Patterns, unmatched: list[str], modules: dict[str, Module], linears: dict[str, Linear]
) -> None:
    for path, module in modules.items():
        if isinstance(module, Embedding) and match(unmatched, path):
            tied = " and tied to the output head, so that an update would change both"
            is_tied = path == "tok_embed" and "head" not in modules
            raise UsageError(
                f"{path} is an embedding{tied if is_tied else ''}; LoRA here adapts Linear "
                f"layers; {_choice(linears)}. To train it, tune the whole model"
            )
    if isinstance(wanted, str):
        raise UsageError(
            f"target_modules={wanted!r}, a string, is a regular expression for a whole path and "
            f"matches no Linear; for a name use a list: [{wanted!r}]; {_choice(linears)}"
        )
    raise UsageError(f"target_modules={unmatched!r} matches no Linear; {_choice(linears)}")


def _choice(linears: dict[str, Linear]) -> str:
    names = dict.fromkeys(path.rpartition(".")[2] for path in linears)
    return f"this model has: {', '.join(names)}"


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

    def put(self, use_copies: bool) -> None:
        """Put the copies, or the base's own parameters, in their place in the model."""
        for copied in self.copies:
            new = copied.copy if use_copies else copied.original
            setattr(copied.owner, copied.attribute, new)


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
        paths = [path for path in modules if path and match([name], path)]
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
