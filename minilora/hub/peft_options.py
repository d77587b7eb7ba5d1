"""adapter_config.json: what PEFT's options mean here, and what PEFT must read to compute the same.

The options that matter are rank and scale of each layer: PEFT takes them from r and lora_alpha,
and from rank_pattern and alpha_pattern for paths that differ.
Sources: tuners/tuners_utils.py and tuners/lora/config.py in PEFT 0.21.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from minilora.combining.patterns import ranks_and_alphas, shortest_ends
from minilora.hub.hf_layout import Layout
from minilora.hub.peft_layout import Factors
from minilora.hub.safetensors_files import first_two
from minilora.lora_config import LoraConfig, Patterns
from minilora.lora_init import PART_OF_W
from minilora.path_patterns import match
from minilora.system.errors import UsageError, brief

# Keys of adapter_config.json: read here; of no matter once an adapter is trained; and those under
# which PEFT computes something else than x W + s x A B.
_READ = [
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "lora_dropout", "bias",
    "use_rslora", "use_dora", "init_lora_weights", "modules_to_save", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern",
]  # fmt: skip
_HARMLESS = [
    "task_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping",
    "peft_version", "fan_in_fan_out", "megatron_config", "megatron_core", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size",
    "runtime_config", "ensure_weight_tying",
]  # fmt: skip
_REFUSED = [
    "use_qalora", "lora_bias", "layer_replication", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "monteclora_config", "use_bdlora",
    "arrow_config", "kasa_config",
]  # fmt: skip
DEFAULT_TARGETS = {  # of PEFT, by the kind of model; of a model of our own it has none
    "gpt2": ("c_attn",),
    "llama": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
}
_WHERE = ("target_modules", "exclude_modules", "layers_to_transform")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # init_lora_weights that alter W
_STARTS = ("gaussian", "mica")  # and that do not, in any case of their letters


def unsupported(written: Mapping[str, Any]) -> dict[str, str]:
    """The options under which PEFT computes something else than x W + s x A B, each with a
    sentence."""
    found = {
        key: f"{key}={brief(written[key])} is not supported; train one without it"
        for key in _REFUSED
        if written.get(key)
    }
    init = written.get("init_lora_weights")
    name = str(init).lower()
    if name.startswith(_CHANGES_BASE):
        found["init_lora_weights"] = (
            f"init_lora_weights={brief(init)} has changed the base model's weights; convert the "
            "adapter with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    elif not (isinstance(init, bool | None) or init in ("orthogonal", "eva") or name in _STARTS):
        found["init_lora_weights"] = (
            f"init_lora_weights={brief(init)} is not known, so that it may have changed the base "
            "model's weights; if it has not, write true there"
        )
    return found


def read_options(written: Mapping[str, Any]) -> LoraConfig:
    """What adapter_config.json says, with PEFT's defaults; paths in it are still PEFT's.

    Raises ValueError for what would make PEFT compute something else, warns of unknown keys.
    """
    if written.get("peft_type") != "LORA":
        raise UsageError(
            f"peft_type={brief(written.get('peft_type'))} is not supported, only 'LORA'"
        )
    for sentence in unsupported(written).values():
        raise UsageError(sentence)
    init = written.get("init_lora_weights", True)
    init = init.lower() if isinstance(init, str) else init  # PEFT takes "OLoRA" too
    where: dict[str, Any] = {key: written.get(key) for key in _WHERE}
    known = {*_READ, *_HARMLESS, *_REFUSED}
    if unknown := sorted(written.keys() - known):
        warnings.warn(f"adapter_config.json: ignored {first_two(unknown)}", stacklevel=3)
    return LoraConfig(
        r=written.get("r", 8),
        lora_alpha=written.get("lora_alpha", 8),
        rank_pattern=written.get("rank_pattern") or {},
        alpha_pattern=written.get("alpha_pattern") or {},
        lora_dropout=written.get("lora_dropout", 0.0),
        bias=written.get("bias", "none"),
        use_rslora=written.get("use_rslora") or False,
        use_dora=written.get("use_dora") or False,
        init_lora_weights=init if init in (False, "gaussian") else True,
        modules_to_save=written.get("modules_to_save") or (),
        **where,
    )


def named_paths(
    written: Mapping[str, Any], peft: LoraConfig, linears: Collection[str], head: str
) -> set[str]:
    """Which of these paths of Linears PEFT adapts under these options, in its own order: first
    what is excluded or trained whole, then names or a pattern, then the numbers of layers, which
    a path that is named in full, such as "lm_head", needs not have."""
    if written.get("target_modules") == "all-linear":
        paths = {path for path in linears if path != head}
    else:
        paths = {path for path in linears if match(peft.target_modules, path)}
    paths = {path for path in paths if not match(peft.exclude_modules, path)}
    for word in peft.modules_to_save:
        paths = {path for path in paths if f".{word}." not in f".{path}."}
    if numbers := peft.layer_numbers():
        kept = {path for path in paths if _layer(path, written.get("layers_pattern")) in numbers}
        return kept | paths.intersection(_names(peft.target_modules))
    return paths


def _names(patterns: Patterns) -> Collection[str]:
    return () if isinstance(patterns, str) else patterns


def _layer(path: str, patterns: Any) -> int | None:
    """The first number in a path, if the name before it is one of these, or whatever it is."""
    found = re.search(r"([^.]+)\.(\d+)\.", path)
    names = [patterns] if isinstance(patterns, str) else patterns
    return int(found[2]) if found and (not names or found[1] in names) else None


def written_options(
    config: LoraConfig, factors: Mapping[str, Factors], whole: set[str], layout: Layout
) -> dict[str, Any]:
    """The content of adapter_config.json, with which PEFT computes the same scale everywhere."""
    everything = {theirs.path for theirs in layout.values()}
    init = config.init_lora_weights
    return _ranks_and_alphas(factors, config.use_rslora) | {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "target_modules": shortest_ends(factors, everything),
        "modules_to_save": shortest_ends(whole, everything, str.endswith) or None,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "init_lora_weights": True if init in PART_OF_W else init,  # W is whole in what we write
    }


def our_options(peft: LoraConfig, layers: Mapping[str, Factors], whole: tuple) -> LoraConfig:
    """The LoraConfig with which we train on, every layer named in full."""
    numbers = _ranks_and_alphas(layers, peft.use_rslora)
    return replace(
        peft,
        **numbers,
        target_modules=tuple(layers),
        exclude_modules=(),
        layers_to_transform=None,
        modules_to_save=whole,
    )


def _ranks_and_alphas(factors: Mapping[str, Factors], use_rslora: bool) -> dict[str, Any]:
    ranks = {path: len(f.B) for path, f in factors.items()}
    scales = {path: f.scale for path, f in factors.items()}
    return ranks_and_alphas(ranks, scales, use_rslora)
