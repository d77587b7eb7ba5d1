"""Models in .gguf files: what their metadata and blocks mean, written once more from llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf_files import gguf, random_blocks
from kinds import AS_SAID, Arrays, Kind, differing, need_bytes, only_numbers_differ
from model_kinds import parameters, run, said_by_model
from mutations import Files, Rng, pick
from plain_readers import (
    is_float,
    is_int,
    need,
    plain_gguf,
    unpacked,
)

import minilora as ml
from minilora.quantization.quantized import dequantize

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
    scaling = metadata.get("llama.rope.scaling.type", "linear")
    need(scaling in ("linear", "none"), "scaling")
    factor = metadata.get("llama.rope.scaling.factor", metadata.get("llama.rope.scale_linear", 1.0))
    need(is_float(factor, 0, 1e300), "factor")
    said["factor"] = None if scaling == "none" or factor == 1 else factor
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
