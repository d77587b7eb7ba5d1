"""Kinds of file that hold weights: models in folders and in .gguf files, adapters, resume files.

What a config means is written here once more, from transformers', PEFT's and llama.cpp's sources,
so that a reader of ours that understood it otherwise would be found out.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from folders import adapt, make
from gguf_files import gguf, random_blocks
from kinds import AS_SAID, Kind, differing
from mutations import Files, Rng, pick, safetensors
from plain_readers import (
    Unreadable,
    is_float,
    is_int,
    need,
    plain_gguf,
    plain_json,
    plain_object,
    plain_safetensors,
    safetensors_header,
    unpacked,
)
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

import minilora as ml
from minilora.analysis.inspection import inspect_adapter
from minilora.lora import active_adapter, adapters, lora_layers
from minilora.lora_targets import plain_path
from minilora.quantization.quantized import dequantize
from minilora.text.windows import random_windows
from minilora.training.checkpoint import _checksum
from minilora.training.loop import TrainConfig, Training

Arrays = dict[str, np.ndarray]
_GPT2 = {
    "attn.c_proj": "attn.o_proj", "mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj",
    "ln_1": "attn_norm", "ln_2": "mlp_norm",
}  # fmt: skip
_LLAMA = {f"self_attn.{x}_proj": f"attn.{x}_proj" for x in "qkvo"}
_LLAMA |= {f"mlp.{x}_proj": f"mlp.{x}_proj" for x in ("gate", "up", "down")}
_LLAMA |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm"}
_TOPS = {
    "transformer.wte": "tok_embed", "transformer.wpe": "pos_embed", "transformer.ln_f": "norm",
    "model.embed_tokens": "tok_embed", "model.norm": "norm", "lm_head": "head",
}  # fmt: skip
IDS = np.arange(4)[None]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def need_bytes(files: Files, *names: str) -> Iterator[bytes]:
    for name in names:
        need(isinstance(files.get(name), bytes), f"there is no file {name}")
        yield files[name]


def only_numbers_differ(
    whole: Mapping[str, bytes], files: Files, read: Callable[[bytes], tuple[Arrays, Any]]
) -> bool:
    """Whether the files are as before but for weights, and these are finite: no one can tell that
    they are damaged."""
    try:
        for name in whole.keys() | files.keys():
            before, after = whole.get(name), files.get(name)
            if before != after:
                need(isinstance(after, bytes) and not name.endswith(".json"), name)
                (old, about), (new, about_new) = read(before or b""), read(after)
                need(about == about_new and old.keys() == new.keys(), name)
                for key, array in new.items():
                    need(array.shape == old[key].shape and np.isfinite(array).all(), key)
    except Unreadable:
        return False
    return True


def our_place(path: str) -> tuple[str, int | None]:
    """A module of GPT-2 or Llama as ours, and which third of c_attn's columns is meant by "#0"."""
    if path in _TOPS:
        return _TOPS[path], None
    path, _, third = path.partition("#")
    for prefix, table in (("transformer.h.", _GPT2), ("model.layers.", _LLAMA)):
        if path.startswith(prefix):
            number, _, rest = path.removeprefix(prefix).partition(".")
            if third:
                return f"layers.{number}.attn.{'qkv'[int(third)]}_proj", int(third)
            return f"layers.{number}.{table.get(rest, rest)}", None
    return path, None


def our_arrays(tensors: Arrays, kind: str, tied: bool) -> Arrays:
    """Tensors under their names in a Hugging Face model -> the parameters of ours."""
    found: Arrays = {}
    for name, array in tensors.items():
        if re.fullmatch(r"(.*\.)?(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)", name):
            continue
        name = re.sub(r"(?<![^.])(_orig_mod|module)\.", "", name)
        path, _, part = name.rpartition(".")
        if kind == "minilora":
            parts = [(path, array)]
        elif path.endswith(".c_attn"):
            need(array.shape[-1] % 3 == 0, f"{name} is no three matrices")
            thirds = np.split(array, 3, axis=-1)
            parts = [(our_place(f"{path}#{i}")[0], third) for i, third in enumerate(thirds)]
        else:
            turned = kind != "gpt2" and array.ndim == 2 and "embed" not in name
            turned |= path == "lm_head"
            parts = [(our_place(path)[0], array.T if turned else array)]
        for ours, value in parts:
            key, value = f"{ours}.{part}", np.ascontiguousarray(value)
            twin = found.get(key)
            need(twin is None or np.array_equal(twin, value), f"two different {key}")
            need(np.isfinite(value).all(), f"{key} is not finite")
            found[key] = value
    if tied and "head.weight" in found:
        head = found.pop("head.weight")
        need(np.array_equal(head.T, found.get("tok_embed.weight")), "the head is another's")
    return found


def said_of_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json of transformers says, under our names."""
    kind = config.get("model_type")
    need(kind in ("gpt2", "llama", "minilora"), f"model_type {kind!r}")
    if kind == "minilora":
        return _said_of_ours(config)
    gpt2 = kind == "gpt2"
    names = {name: name for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    names["block_size"] = "n_positions"
    if not gpt2:
        names |= {"block_size": "max_position_embeddings", "n_layer": "num_hidden_layers"}
        names |= {"n_head": "num_attention_heads", "n_embd": "hidden_size"}
    said = {ours: config.get(theirs) for ours, theirs in names.items()}
    for name, value in said.items():
        need(is_int(value), f"{name} is {value!r:.40}")
    heads = config.get("num_key_value_heads") if not gpt2 else None
    said["kv_heads"] = said["n_head"] if heads is None else heads
    width = config.get("head_dim") if not gpt2 else None
    said["head_size"] = said["n_embd"] // said["n_head"] if width is None else width
    hidden = config.get("n_inner" if gpt2 else "intermediate_size")
    said["hidden"] = 4 * said["n_embd"] if hidden is None and gpt2 else hidden
    for name in ("kv_heads", "head_size", "hidden"):
        need(is_int(said[name]), f"{name} is {said[name]!r:.40}")
    eps, default = ("layer_norm_epsilon", 1e-5) if gpt2 else ("rms_norm_eps", 1e-6)
    said["norm_eps"] = config.get(eps, default)
    need(is_float(said["norm_eps"], 0, 1), f"{eps} is {said['norm_eps']!r:.40}")
    said["tie_embeddings"] = config.get("tie_word_embeddings", gpt2)
    need(type(said["tie_embeddings"]) is bool, "tie_word_embeddings")
    need(not config.get("quantization_config"), "quantization_config")
    act = config.get(
        "activation_function" if gpt2 else "hidden_act", "gelu_new" if gpt2 else "silu"
    )
    known = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast")
    need(act in (known if gpt2 else ("silu", "swish")), f"activation {act!r:.40}")
    if gpt2:
        need(config.get("scale_attn_weights", True) is True, "scale_attn_weights")
        need(not config.get("scale_attn_by_inverse_layer_idx"), "scale_attn_by_inverse_layer_idx")
        need(not config.get("add_cross_attention"), "add_cross_attention")
        return said
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    need(isinstance(rope, dict), "rope")
    said["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    need(is_float(said["rope_theta"], 0, 1e300), f"rope_theta is {said['rope_theta']!r:.40}")
    factor = rope.get("factor") if rope.get("rope_type", rope.get("type")) == "linear" else None
    need(factor is None or is_float(factor, 0, 1e300), f"factor is {factor!r:.40}")
    said["factor"] = factor
    said["biases"] = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    return said


def _said_of_ours(config: Mapping[str, Any]) -> dict[str, Any]:
    said = {k: v for k, v in config.items() if k not in ("model_type", "dtype")}
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        need(is_int(said.get(name)), name)
    need(is_float(said.get("norm_eps", 1e-5), 0, 1), "norm_eps")
    need(is_float(said.get("rope_theta", 1e4), 0, 1e300), "rope_theta")
    need(said.get("dropout", 0) == 0 or is_float(said["dropout"], 0, 1), "dropout")
    return said


def said_by_model(model: ml.Transformer, said: Mapping[str, Any]) -> dict[str, Any]:
    """The same, of a model that was loaded."""
    c = model.config
    found = {
        name: getattr(c, name) for name in said if name not in ("factor", "biases", "rope_scaling")
    }
    if "factor" in said:
        found["factor"] = c.rope_scaling.factor if c.rope_scaling else None
    if "biases" in said:
        found["biases"] = c.has_bias("q_proj"), c.has_bias("up_proj")
    if "rope_scaling" in said:
        s = c.rope_scaling
        found["rope_scaling"] = None if s is None else vars(s)
    return found


def parameters(model: ml.Transformer) -> Arrays:
    return {name: p.data for name, p in model.named_parameters()}


def run(model: ml.Transformer) -> None:
    """It can be used: what it says may be nonsense, but it says it."""
    with np.errstate(all="ignore"), ml.no_grad():
        model(IDS[:, : model.config.block_size] % model.config.vocab_size)


@cache
def _model_folder(kind: str, dtype: str, shards: int, wide: int, seed: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        ml.save_model(make(kind, seed, n_embd=wide), place)
        arrays = load_file(Path(place, "model.safetensors"))
        files = contents(Path(place))
    if dtype == "F32" and not shards:
        return files
    entries = [(k, dtype, list(a.shape), _stored(a, dtype)) for k, a in arrays.items()]
    if not shards:
        return files | {"model.safetensors": safetensors(entries)}
    index = {}
    del files["model.safetensors"]
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        files[name] = safetensors(entries[i::shards], {"format": "pt"})
        index |= {entry[0]: name for entry in entries[i::shards]}
    size = sum(len(raw) for *_, raw in entries)
    about = {"metadata": {"total_size": size}, "weight_map": index}
    return files | {"model.safetensors.index.json": json.dumps(about).encode()}


class Models(Kind):
    """Folders of transformers' layout, in one file or in shards."""

    def __init__(self, kind: str, dtype: str = "F32", shards: int = 0, wide: int = 8) -> None:
        more = f"{', shards' if shards else ''}{', wide' if wide > 8 else ''}"
        self.name = f"model folder ({kind}, {dtype}{more})"
        self.kind, self.dtype, self.shards, self.wide = kind, dtype, shards, wide

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return _model_folder(self.kind, self.dtype, self.shards, self.wide, int(rng.integers(3)))

    def load(self, folder: Path, target: Any) -> Any:
        model = ml.load_model(folder)
        run(model)
        return model

    def must_load(self, whole: Mapping[str, bytes], files: Files) -> bool:
        return only_numbers_differ(whole, files, plain_safetensors)

    def judge(self, files: Files, loaded: Any) -> str:
        (config,) = map(plain_object, need_bytes(files, "config.json"))
        said = said_of_model(config)
        if wrong := differing(said_by_model(loaded, said), said):
            need(False, wrong)
        tied = said.get("tie_embeddings", True)
        arrays = our_arrays(self._tensors(files), config["model_type"], tied)
        if wrong := differing(parameters(loaded), arrays):
            need(False, wrong)
        return AS_SAID

    def _tensors(self, files: Files) -> Arrays:
        if not self.shards:
            (raw,) = need_bytes(files, "model.safetensors")
            return plain_safetensors(raw)[0]
        (index,) = map(plain_object, need_bytes(files, "model.safetensors.index.json"))
        where = index.get("weight_map")
        need(isinstance(where, dict) and where, "no weight_map")
        tensors: Arrays = {}
        for shard in dict.fromkeys(where.values()):
            need(isinstance(shard, str), "a shard's name")
            (raw,) = need_bytes(files, shard)
            for name, array in plain_safetensors(raw)[0].items():
                need(where.get(name) == shard, f"{name} is not listed in {shard}")
                tensors[name] = array
        need(tensors.keys() == where.keys(), "a tensor is listed that is nowhere")
        return tensors


def _stored(array: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array).astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


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
        need(len(names) < 100 and "+)+" not in names, "a pattern that takes for ever")
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

    def must_load(self, whole: Mapping[str, bytes], files: Files) -> bool:
        return only_numbers_differ(whole, files, plain_safetensors)

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


_SAID = {
    "general.architecture": "llama",
    "llama.context_length": 16,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.layer_norm_rms_epsilon": 0.0009765625,
    "llama.rope.freq_base": 50.0,
    "general.name": "tiny",
    "tokenizer.ggml.tokens": ["a", "b", "ab"],
    "tokenizer.ggml.token_type": [1, 1, 3],
}
_GGUF = {
    "attn_q": ("attn.q_proj", 32, 32), "attn_k": ("attn.k_proj", 16, 32),
    "attn_v": ("attn.v_proj", 16, 32), "attn_output": ("attn.o_proj", 32, 32),
    "ffn_gate": ("mlp.gate_proj", 64, 32), "ffn_up": ("mlp.up_proj", 64, 32),
    "ffn_down": ("mlp.down_proj", 32, 64), "attn_norm": ("attn_norm", 1, 32),
    "ffn_norm": ("mlp_norm", 1, 32),
}  # fmt: skip
_NAMES = {"token_embd": "tok_embed", "output_norm": "norm", "output": "head"}


@cache
def _gguf_file(kind: str, head: bool) -> bytes:
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    tensors["token_embd.weight"] = (kind, (20, 32), random_blocks(kind, 20, 32, rng))
    for i in range(2):
        for name, (_, rows, columns) in _GGUF.items():
            which, shape = (kind, (rows, columns)) if rows > 1 else ("F32", (columns,))
            raw = random_blocks(which, rows, columns, rng)
            tensors[f"blk.{i}.{name}.weight"] = (which, shape, raw)
    tensors["output_norm.weight"] = ("F32", (32,), random_blocks("F32", 1, 32, rng))
    said = dict(_SAID)
    if head:
        tensors["output.weight"] = (kind, (20, 32), random_blocks(kind, 20, 32, rng))
        said |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    return gguf(said, tensors)


class GgufModels(Kind):
    """Files of llama.cpp, in floats and in blocks, loaded as floats or left in their blocks."""

    def __init__(self, quantized: bool) -> None:
        self.name = f".gguf ({'left in its blocks' if quantized else 'as floats'})"
        self.quantized = quantized

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        kinds = ["Q4_0", "Q8_0", "F16", "F32", "Q4_1", "BF16"]
        return {"tiny.gguf": _gguf_file(pick(rng, kinds), bool(rng.integers(2)))}

    def load(self, folder: Path, target: Any) -> Any:
        model = ml.load_model(folder / "tiny.gguf", quantized=self.quantized)
        run(model)
        return model

    def must_load(self, whole: Mapping[str, bytes], files: Files) -> bool:
        return only_numbers_differ(whole, files, _gguf_numbers)

    def judge(self, files: Files, loaded: Any) -> str:
        (raw,) = need_bytes(files, "tiny.gguf")
        file = plain_gguf(raw)
        arrays = {name: unpacked(*tensor) for name, tensor in file.tensors.items()}
        said = said_of_gguf(file.metadata, arrays)
        if wrong := differing(said_by_model(loaded, said), said):
            need(False, wrong)
        if self.quantized:
            dequantize(loaded)
        ours = _from_gguf(arrays, said["n_head"], said["kv_heads"])
        if wrong := differing(parameters(loaded), ours):
            need(False, wrong)
        return AS_SAID


def _gguf_numbers(raw: bytes) -> tuple[Arrays, Any]:
    file = plain_gguf(raw)
    kinds = {name: kind for name, (kind, *_) in file.tensors.items()}
    return {k: unpacked(*t) for k, t in file.tensors.items()}, (file.metadata, kinds)


def said_of_gguf(metadata: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    need(metadata.get("general.architecture") == "llama", "architecture")
    names = {"block_size": "context_length", "n_layer": "block_count", "n_embd": "embedding_length"}
    names |= {"n_head": "attention.head_count", "hidden": "feed_forward_length"}
    said: dict[str, Any] = {ours: metadata.get(f"llama.{key}") for ours, key in names.items()}
    said["kv_heads"] = metadata.get("llama.attention.head_count_kv", said["n_head"])
    for name, value in said.items():
        need(is_int(value), f"{name} is {value!r:.40}")
    said["norm_eps"] = metadata.get("llama.attention.layer_norm_rms_epsilon")
    need(is_float(said["norm_eps"], 0, 1), "eps")
    said["rope_theta"] = metadata.get("llama.rope.freq_base", 10000.0)
    need(is_float(said["rope_theta"], 0, 1e300), "theta")
    said["factor"] = None
    if metadata.get("llama.rope.scaling.type", "none") != "none":
        need(metadata["llama.rope.scaling.type"] == "linear", "scaling")
        said["factor"] = metadata.get("llama.rope.scaling.factor")
        need(is_float(said["factor"], 0, 1e300), "factor")
    said["tie_embeddings"] = "output.weight" not in arrays
    said["vocab_size"] = len(arrays.get("token_embd.weight", ()))
    return said


def _from_gguf(arrays: Arrays, heads: int, kv_heads: int) -> Arrays:
    found: Arrays = {}
    for name, array in arrays.items():
        words = name.split(".")
        if words[0] == "blk":
            need(len(words) == 4 and words[2] in _GGUF, f"{name} is nobody's")
            path = f"layers.{words[1]}.{_GGUF[words[2]][0]}"
            if words[2] in ("attn_q", "attn_k"):  # pair by pair -> first halves, second halves
                n = heads if words[2] == "attn_q" else kv_heads
                need(array.ndim == 2 and len(array) % (2 * n) == 0, f"{name} has no {n} heads")
                array = array.reshape(n, -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        else:
            path = _NAMES.get(words[0], name)
        need(np.isfinite(array).all(), f"{name} is not finite")
        turned = path != "tok_embed" and array.ndim == 2
        found[f"{path}.{words[-1]}"] = np.ascontiguousarray(array.T if turned else array)
    return found


_TOKENS = np.random.default_rng(7).integers(11, size=300)
_RESUME = "run.safetensors"
_CONFIG = TrainConfig(steps=6, lr=1e-2, warmup=2)


def _batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random_windows(_TOKENS, 2, 6, rng)


def _training(file: Path) -> Training:
    options: dict[str, Any] = dict(evaluate=lambda model: 1.5, evaluate_every=2, save_every=1)
    return Training(make("gpt2", 5), _batch, _CONFIG, checkpoint=file, **options)


@cache
def _run(steps: int) -> tuple[bytes, Training]:
    """A checkpoint, and the run that left it."""
    with tempfile.TemporaryDirectory() as place:
        training = _training(Path(place, _RESUME))
        for _ in range(steps):
            training.step()
        return Path(place, _RESUME).read_bytes(), training


class Resumes(Kind):
    """What a run leaves on disk: damaged, or (sealed) what no run leaves, with a right checksum."""

    def __init__(self, sealed: bool = False) -> None:
        self.name = f"resume checkpoint{' with a right checksum' if sealed else ''}"
        self.damaged_before = sealed

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        raw, training = _run(int(rng.integers(1, 6)))
        return {_RESUME: _sealed(rng, training) if self.damaged_before else raw}

    def target(self) -> Any:
        return make("gpt2", 5)

    def state(self, target: Any) -> Any:
        return [(n, p.requires_grad, p.data.tobytes()) for n, p in target.named_parameters()]

    def load(self, folder: Path, target: Any) -> Any:
        options: dict[str, Any] = dict(evaluate=lambda model: 1.5, evaluate_every=2)
        file = folder / _RESUME
        return Training(target, _batch, _CONFIG, checkpoint=file, **options)

    def judge(self, files: Files, loaded: Any) -> str:
        if files[_RESUME] == "missing" or files[_RESUME] == "a broken link":
            need(loaded.steps_done == 0, "it goes on from nothing")
            return AS_SAID
        (raw,) = need_bytes(files, _RESUME)
        run = _run(1)[1]
        try:
            arrays = load(raw)
        except (SafetensorError, ValueError) as error:
            need(False, f"{error}")
        said = safetensors_header(raw)[0].get("__metadata__", {}).get("run", "")
        need(plain_json(said.encode()) == run._identity, "it is of another run")
        losses, seconds, pairs = (arrays.pop(name, None) for name in _HISTORY)
        need(losses is not None and losses.ndim == 1 and losses.size, "losses")
        need(0 < losses.size <= _CONFIG.steps and np.isfinite(losses).all(), "losses")
        need(seconds is not None and seconds.shape == losses.shape, "seconds")
        need(np.isfinite(seconds).all() and (seconds >= 0).all(), "seconds")
        need(pairs is not None and pairs.ndim == 2 and pairs.shape[1] == 2, "evaluations")
        steps = pairs[:, 0].tolist()
        need(all(x in range(losses.size + 1) for x in steps), "evaluations")
        need(steps == sorted(set(steps)), "evaluations")
        found = loaded.history
        measured = np.array(found.evaluations).reshape(-1, 2)
        need(found.losses == losses.tolist() and found.seconds == seconds.tolist(), "history")
        need(np.array_equal(measured, pairs, equal_nan=True), "evaluations")
        state = loaded.optimizer.state()
        need(arrays.keys() == state.keys(), "other arrays")
        for key, array in arrays.items():
            need(np.isfinite(array).all() and np.array_equal(state[key], array), f"another {key}")
        need(int(state["t"]) == losses.size, "t")
        return AS_SAID


_HISTORY = ("losses", "seconds", "evaluations")


def _sealed(rng: Rng, training: Training) -> bytes:
    """A checkpoint with one thing in it that no run leaves, and the checksum of that."""
    with tempfile.TemporaryDirectory() as place:
        training.checkpoint = Path(place, _RESUME)
        training.save()
        raw = training.checkpoint.read_bytes()
    arrays = load(raw)
    name = pick(rng, sorted(arrays))
    array = arrays[name]
    how = int(rng.integers(6))
    if how == 0:
        del arrays[name]
    elif how == 1:
        arrays["strange"] = array
    elif how == 2:
        changes = [array[..., None], array.reshape(-1)[:1], array.reshape(-1)[:0], array.T]
        arrays[name] = pick(rng, changes)
    elif how == 3:
        arrays[name] = array.astype(pick(rng, ["f8", "f4", "i8", "u1", "?"]))
    elif how == 4 and array.ndim:
        arrays[name] = np.concatenate([array, array])
    elif array.size:
        numbers = [-1, 7, 2**31] if array.dtype.kind == "i" else [np.nan, np.inf, -1.0, 0.5, 1e300]
        with np.errstate(over="ignore"):
            array.flat[int(rng.integers(array.size))] = pick(rng, numbers)
    run = safetensors_header(raw)[0]["__metadata__"]["run"]
    if how == 5 and rng.random() < 0.3:
        run = pick(
            rng, ["", "null", "[]", "{}", "[" * 100_000, run.replace("steps", "stops"), "NaN"]
        )
    return save(arrays, {"run": run, "checksum": _checksum(run, arrays)})


WEIGHTS: list[Kind] = [
    Models("gpt2"),
    Models("llama", "F16"),
    Models("llama", "BF16", shards=2),
    Models("gpt2-untied", shards=3),
    Models("mixed-untied"),
    Models("llama", "F16", wide=96),
    Adapters("LoRA"),
    Adapters("LoRA"),
    Adapters("DoRA, PiSSA"),
    Inspected("LoRA"),
    GgufModels(quantized=False),
    GgufModels(quantized=True),
    Resumes(),
    Resumes(sealed=True),
]
