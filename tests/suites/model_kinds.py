"""Folders of models: what their files mean, written once more from the sources of transformers.

A reader of ours that understood them otherwise would be found out.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from folders import make
from kinds import AS_SAID, Arrays, Kind, contents, differing, need_bytes, only_numbers_differ
from mutations import Files, Rng, safetensors
from plain_readers import (
    is_float,
    is_int,
    need,
    plain_object,
    plain_safetensors,
)
from safetensors.numpy import load_file

import minilora as ml

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
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
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


class KilledSaves(Models):
    """A save over another one that was killed between its two files; what its config would have
    been stands in a third, and counts while the other two are those it speaks of."""

    bit_for_bit = ("config.json",)

    def __init__(self) -> None:
        super().__init__("gpt2")
        self.name = "model folder (killed while it was saved)"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        old, new = (_model_folder("gpt2", "F32", 0, wide, int(rng.integers(3))) for wide in (8, 16))
        files = {"config.json": old["config.json"], "model.safetensors": new["model.safetensors"]}
        said = {"config": json.loads(new["config.json"]), **_checksums(files)}
        return files | {_UPCOMING: json.dumps(said).encode()}

    def must_load(self, whole: Mapping[str, bytes], files: Files) -> bool:
        return files == whole

    def judge(self, files: Files, loaded: Any) -> str:
        if isinstance(files[_UPCOMING], bytes):
            said = plain_object(files[_UPCOMING])
            if said | _checksums(files) == said:
                files = files | {"config.json": json.dumps(said["config"]).encode()}
        return super().judge(files, loaded)


_UPCOMING = ".config.json.upcoming"


def _checksums(files: Files) -> dict[str, str]:
    raw = need_bytes(files, "config.json", "model.safetensors")
    old, weights = (sha256(content).hexdigest() for content in raw)
    return {"old": old, "weights": weights}


def _stored(array: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array).astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
