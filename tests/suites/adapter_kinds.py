"""PEFT's two files: what they mean, written once more from PEFT's sources."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from folders import adapt, make
from kinds import AS_SAID, Arrays, Kind, contents, need_bytes, only_numbers_differ
from model_kinds import our_arrays, our_place, parameters, run
from mutations import Files, Rng
from plain_readers import (
    is_float,
    is_int,
    need,
    plain_object,
    plain_safetensors,
)

import minilora as ml
from minilora.analysis.inspection import inspect_adapter
from minilora.lora import active_adapter, adapters, lora_layers
from minilora.lora_targets import plain_path

_PEFT_KEYS = {
    "auto_mapping": None, "exclude_modules": None, "layers_pattern": None, "revision": None,
    "layers_to_transform": None, "megatron_config": None, "peft_version": "0.21.2",
    "loftq_config": {}, "lora_bias": False, "layer_replication": None, "use_qalora": False,
    "trainable_token_indices": None,
}  # fmt: skip
_EVERY = dict(target_modules="all-linear")
_Q_V, _QKV = dict(target_modules=["q_proj", "v_proj"]), ["q_proj", "k_proj", "v_proj"]
_MLP = dict(target_modules=["o_proj", "up_proj"])
_ADAPTERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "LoRA": [
        ("llama", _EVERY | dict(rank_pattern={"q_proj": 3, "0.mlp.up_proj": 1})),
        ("llama", _Q_V | dict(use_rslora=True, modules_to_save=["norm", "head"])),
        ("gpt2", dict(target_modules=_QKV, alpha_pattern={"1.attn.q_proj": 7})),
        ("gpt2", _MLP | dict(bias="all")),
        ("gpt2", _MLP | dict(bias="lora_only")),
        ("mixed", dict(target_modules=["q_proj", "down_proj"])),
    ],
    "DoRA, PiSSA": [
        ("llama", dict(target_modules=["q_proj", "down_proj"], use_dora=True)),
        ("gpt2", dict(target_modules=[*_QKV, "o_proj"], use_dora=True)),
        ("llama", _Q_V | dict(init_lora_weights="pissa")),
        ("llama", dict(target_modules=["k_proj"], init_lora_weights="olora", use_rslora=True)),
    ],
}


@cache
def _adapter_folder(which: str, number: int) -> dict[str, bytes]:
    kind, options = _ADAPTERS[which][number]
    with tempfile.TemporaryDirectory() as place:
        ml.save_adapter(adapt(make(kind), seed=number, **options), place)
        files = contents(Path(place))
    written = json.loads(files["adapter_config.json"])
    return files | {"adapter_config.json": json.dumps(_PEFT_KEYS | written).encode()}


class Adapters(Kind):
    """PEFT's two files, loaded beside another adapter, which stays as it is."""

    def __init__(self, which: str) -> None:
        self.name, self.which, self.kind = f"adapter ({which})", which, "llama"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        number = int(rng.integers(len(_ADAPTERS[self.which])))
        self.kind = _ADAPTERS[self.which][number][0]
        return _adapter_folder(self.which, number)

    def target(self) -> Any:
        return adapt(make(self.kind), "first", seed=9, target_modules=["o_proj", "q_proj"])

    def state(self, target: Any) -> Any:
        numbers = [(n, p.requires_grad, p.data.tobytes()) for n, p in target.named_parameters()]
        return numbers, active_adapter(target), list(adapters(target))

    def load(self, folder: Path, target: Any) -> Any:
        ml.load_adapter(target, folder)
        run(target)
        return target

    def must_load(self, whole: Mapping[str, bytes], files: Files) -> bool:
        return only_numbers_differ(whole, files, plain_safetensors)

    def judge(self, files: Files, loaded: Any) -> str:
        raw_config, raw = need_bytes(files, "adapter_config.json", "adapter_model.safetensors")
        tensors, _ = plain_safetensors(raw)
        base = make(self.kind)
        said = said_of_adapter(plain_object(raw_config), tensors, base, self.kind)
        need(active_adapter(loaded) == "default", "it is not active")
        found: Arrays = {}
        for path, layer in lora_layers(loaded).items():
            if one := layer.adapters.get("default"):
                A, B = (x.data.astype(np.float64) for x in (one.A, one.B))
                found[f"{path} ΔW"] = one.s * (A @ B)
                if hasattr(one, "m"):
                    found[f"{path} m"] = one.m.data
        names = {id(p): plain_path(name) for name, p in loaded.named_parameters()}
        for copied in adapters(loaded)["default"].copies:
            found[names.get(id(copied.copy), "?")] = copied.copy.data
        for key in found.keys() | said.keys():
            one, other = found.get(key), said.get(key)
            if other is None:  # nothing is said of it: then it is as the base has it
                other = parameters(base).get(key, np.zeros(1) if key.endswith("ΔW") else None)
            if one is None:
                one = parameters(base).get(key, np.zeros(1) if key.endswith("ΔW") else None)
            need(one is not None and other is not None, f"{key} is only on one side")
            size = 1e-9 * max(1e-30, float(np.abs(other).max()), float(np.abs(one).max()))
            need(np.allclose(one, other, rtol=1e-9, atol=size), f"{key} has other numbers")
        return AS_SAID


def said_of_adapter(
    config: Mapping[str, Any], tensors: Arrays, base: ml.Transformer, kind: str
) -> Arrays:
    """ΔW (and DoRA's m) of each of our layers, and what is trained whole, as PEFT would have it."""
    need(config.get("peft_type") == "LORA", "peft_type")
    for option in ("use_rslora", "use_dora"):
        need(not config.get(option) or config[option] is True, option)
    for option in ("lora_bias", "use_qalora", "layer_replication", "trainable_token_indices"):
        need(not config.get(option), f"{option}, which we do not compute")
    init = str(config.get("init_lora_weights", True)).lower()
    need(not init.startswith(("pissa", "olora", "corda", "loftq", "lora_ga")), init)
    said: Arrays = {}
    for key, array in tensors.items():
        key = re.sub(r"(?<![^.])(_orig_mod|module)\.", "", key)
        need(key.startswith("base_model.model."), f"{key} is nobody's")
        need(np.isfinite(array).all(), f"{key} is not finite")
        path, _, part = key.removeprefix("base_model.model.").partition(".lora_")
        if part == "A.weight":
            B = tensors.get(key.replace(".lora_A.", ".lora_B."))
            need(B is not None, f"{key} has no B")
            if targeted(config, path):
                _say_factors(said, config, path, array, B, kind)
        elif part == "magnitude_vector":
            need(config.get("use_dora"), "m without DoRA")
            for ours, cut in _our_parts(path, kind, array.shape[0]):
                said[f"{ours} m"] = array[cut]
        elif not part:
            name = re.sub(r"\.(base_layer|modules_to_save)\.", ".", path)
            said |= our_arrays({name: array}, "minilora" if kind == "mixed" else kind, False)
    known = parameters(base)
    for key, array in said.items():
        path, _, part = key.partition(" ")
        here = known.get(path if not part else f"{path}.weight")
        need(here is not None, f"{path} is not in the model")
        shape = here.shape if part != "m" else here.shape[1:]
        need(array.shape == shape, f"{key} is {array.shape}, not {shape}")
    return said


def _say_factors(
    said: Arrays, config: Mapping[str, Any], path: str, A: np.ndarray, B: np.ndarray, kind: str
) -> None:
    r = by_pattern(config.get("rank_pattern"), path, config.get("r", 8))
    alpha = by_pattern(config.get("alpha_pattern"), path, config.get("lora_alpha", 8))
    need(is_int(r) and A.shape[:1] == (r,) and B.shape[1:] == (r,), f"{path}: r is {r!r:.40}")
    need(is_float(alpha, 0, 1e300), f"{path}: alpha is {alpha!r:.40}")
    scale = alpha / (math.sqrt(r) if config.get("use_rslora") else r)
    delta = scale * (B.astype(np.float64) @ A.astype(np.float64)).T  # (d_in, d_out)
    for ours, cut in _our_parts(path, kind, B.shape[0]):
        said[f"{ours} ΔW"] = delta[:, cut]


def _our_parts(path: str, kind: str, d_out: int) -> list[tuple[str, slice]]:
    """Our layers that a module is, and which of its columns each has."""
    if kind == "mixed":
        return [(path, slice(None))]
    if not path.endswith(".c_attn"):
        return [(our_place(path)[0], slice(None))]
    need(d_out % 3 == 0, "c_attn is no three matrices")
    n = d_out // 3
    return [(our_place(f"{path}#{i}")[0], slice(i * n, i * n + n)) for i in range(3)]


def by_pattern(patterns: Any, path: str, default: Any) -> Any:
    """PEFT's get_pattern_key: the first pattern that matches the path's end."""
    need(isinstance(patterns, dict) or not patterns, "a pattern's table")
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", path):
                return value
        except re.error:
            need(False, f"{pattern!r:.40} is no pattern")
    return default


def targeted(config: Mapping[str, Any], path: str) -> bool:
    """Whether PEFT would adapt the module: check_target_module_exists in tuners_utils.py."""
    wanted, excluded = config.get("target_modules"), config.get("exclude_modules")
    if wanted is None:  # PEFT has a default for each kind of model, but none for one of ours
        wanted = {"transformer": ["c_attn"], "model": ["q_proj", "v_proj"]}.get(
            path.partition(".")[0], ".*"
        )
    if excluded and _named(excluded, path):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(wanted, list) and layers is not None and layers != [] and path not in wanted:
        number = re.match(r".*?\.[^.]*\.(\d+)\.", path)
        if not number or int(number[1]) not in (layers if isinstance(layers, list) else [layers]):
            return False
    return wanted == "all-linear" or _named(wanted, path)


def _named(names: Any, path: str) -> bool:
    if isinstance(names, str):
        need(len(names) < 100, "a long pattern")
        try:
            return re.fullmatch(names, path) is not None
        except re.error:
            need(False, f"{names!r:.40} is no pattern")
    need(isinstance(names, list), f"names are {names!r:.40}")
    return any(isinstance(n, str) and (path == n or path.endswith(f".{n}")) for n in names)


class Inspected(Adapters):
    """Adapters that are looked at without their model."""

    def __init__(self, which: str) -> None:
        super().__init__(which)
        self.name = f"adapter, inspected ({which})"

    def target(self) -> Any:
        return None

    def state(self, target: Any) -> Any:
        return None

    def load(self, folder: Path, target: Any) -> Any:
        found = inspect_adapter(folder)
        return found, json.dumps(found.as_dict(), allow_nan=False)

    def judge(self, files: Files, loaded: Any) -> str:
        found, _ = loaded
        raw_config, raw = need_bytes(files, "adapter_config.json", "adapter_model.safetensors")
        config, tensors = plain_object(raw_config), plain_safetensors(raw)[0]
        tensors = {re.sub(r"(?<![^.])(_orig_mod|module)\.", "", k): a for k, a in tensors.items()}
        paths = {key.partition(".lora_A.")[0] for key in tensors if ".lora_A.weight" in key}
        wanted = {path.removeprefix("base_model.model."): path for path in paths}
        need({one.path for one in found.modules} == wanted.keys(), "other modules")
        need(found.bytes == len(raw) + len(raw_config), "another size")
        for one in found.modules:
            A = tensors[f"{wanted[one.path]}.lora_A.weight"].astype(np.float64)
            B = tensors[f"{wanted[one.path]}.lora_B.weight"].astype(np.float64)
            A, B = A.reshape(len(A), -1), B.reshape(len(B), -1)  # a convolution is a matrix too
            need(len(A) == B.shape[1], f"{one.path}: A {A.shape} and B {B.shape}")
            alpha = by_pattern(config.get("alpha_pattern"), one.path, config.get("lora_alpha", 8))
            rank = by_pattern(config.get("rank_pattern"), one.path, config.get("r", 8))
            need(is_float(alpha, 0, 1e300) and is_int(rank), "alpha or r")
            s = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
            need(math.isclose(one.s, s, rel_tol=1e-12), f"s is {one.s}, not {s}")
            need((one.r, one.d_in, one.d_out) == (len(A), A.shape[1], len(B)), "another size")
            if np.isfinite(A).all() and np.isfinite(B).all():
                S = np.linalg.svd(s * (B @ A))[1][: one.r]
                near = np.allclose(one.singular_values[: len(S)], S, rtol=1e-3, atol=1e-4 * S[0])
                need(near, "other singular values")
        return AS_SAID
