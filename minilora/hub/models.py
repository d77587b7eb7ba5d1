"""Reading and writing whole models: config.json and model.safetensors, as Hugging Face has them.

transformers loads what is saved here as a GPT2LMHeadModel, LlamaForCausalLM or Qwen2ForCausalLM if
it is one, and whatever transformers saved as one of them is loaded here; so is a .gguf file.
Source: save_pretrained and from_pretrained in transformers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from minilora.hub.gguf.models import gguf_arrays, gguf_config, gguf_tensors
from minilora.hub.gguf.reader import read_gguf
from minilora.hub.hf_config import read_config, written_config
from minilora.hub.hf_layout import (
    Layout,
    from_hf,
    layout_of,
    parameter_shapes,
    shapes_to_hf,
    to_hf,
)
from minilora.hub.places import bundled_models, model_place
from minilora.hub.safetensors_files import (
    MODEL_FILES,
    Arrays,
    Shapes,
    StoredTensors,
    equal,
    first_two,
    renamed,
    require_fit,
    stored_weights,
)
from minilora.hub.saves import of_one_save, read_config_file, write_folder
from minilora.lora import adapters, lora_layers
from minilora.lora_targets import base_modules, plain_path
from minilora.nn import Module, Parameter
from minilora.quantization.gguf_blocks import GgufBlocks
from minilora.quantization.quantized import is_quantized, quantize
from minilora.system.errors import UsageError
from minilora.system.files import usable_path
from minilora.transformer import Transformer
from minilora.transformer_config import TransformerConfig


class _NoNumbers(np.random.Generator):
    """Draws arrays that take no memory, for a model whose weights come from a file."""

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return _OneZero(size)


class _OneZero:
    """A zero that stands in every place of an array."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __mul__(self, std: float) -> np.ndarray:
        return np.broadcast_to(np.float32(0), self.shape)


def save_model(model: Transformer, folder: str | Path, *, dtype: Any = np.float32) -> None:
    """Write config.json and model.safetensors: a GPT2LMHeadModel or LlamaForCausalLM if the model
    is one, else a layout of our own (model_type "minilora"). A tied head is not written. Of a
    process that is killed meanwhile, the old model or the new one is left.

    dtype: np.float32, or np.float16 for half the size. Raises ValueError, and writes nothing, for
    a model with adapters, for NaN or infinity, and for numbers that float16 cannot hold.
    """
    layout, folder = layout_in(model), usable_path(folder)
    if adapters(model):
        raise UsageError(
            f"the model has adapters ({', '.join(adapters(model))}): call merge_and_unload(model) "
            "first, or save_adapter(model, folder) to keep only what was trained"
        )
    if is_quantized(model):
        raise UsageError(
            "the model is kept in few bits, and its files would have 32 for each number: call "
            "dequantize(model) first, or save_adapter(model, folder) to keep only what was trained"
        )
    kind = np.dtype(dtype).newbyteorder("=").name if dtype is not None else None
    if kind not in ("float32", "float16"):
        raise UsageError(f"dtype must be np.float32 or np.float16, got {dtype}")
    tensors = to_hf(base_arrays(model), layout)
    write_folder(folder, MODEL_FILES, written_config(model.config, kind), tensors, kind)


def load_model(name_or_path: str | Path, *, quantized: bool = False) -> Transformer:
    """A Transformer in float32: a bundled name, "smollm2", a folder with a GPT-2 or a Llama (also
    Qwen2 and Mistral), whether minilora or transformers wrote it, in float16, bfloat16 or float32,
    in one file or in shards, or a .gguf file of llama.cpp's (a Llama).

    What is stored as float32 is mapped, not read: the weights are views of the file until they
    change, so do not overwrite the file in place meanwhile. quantized=True keeps the matrices of a
    .gguf file in its blocks of 4 or 8 bits, frozen, to train LoRA beside them (QLoRA). Where the
    model was loaded from stands in `model.loaded_from`. Raises FileNotFoundError for what is not
    there, and ValueError for damaged files, for a model that ours cannot compute, and for weights
    that do not fit it, in which case nothing of the model's size was made.
    """
    name, place = str(name_or_path), model_place(name_or_path)
    blocks: dict[str, GgufBlocks] = {}
    if place.suffix == ".gguf":
        file = read_gguf(place, lists=False)
        config = gguf_config(file)
        arrays, blocks = gguf_arrays(gguf_tensors(file, config), file, keep_blocks=quantized)
    elif quantized:
        raise UsageError(
            f"{place} is not in few bits: load it without quantized, then call quantize_nf4(model)"
        )
    else:
        config, arrays = of_one_save(place, MODEL_FILES, lambda: _in_folder(place))
    model = Transformer(config, rng=_NoNumbers(np.random.PCG64()))
    for path, p in model.named_parameters():
        if path in arrays:
            p.data = arrays[path]
    if quantized:
        quantize(model, lambda path, _: blocks[f"{path}.weight"])
    known = name in bundled_models() or name == "smollm2"
    model.loaded_from = name if known else os.path.abspath(place)
    return model


def _in_folder(folder: Path) -> tuple[TransformerConfig, Arrays]:
    data, config_file = read_config_file(folder, MODEL_FILES), folder / MODEL_FILES[0]
    try:
        config = read_config(data)
    except ValueError as error:
        raise UsageError(f"cannot load {config_file}: {error}") from None
    found = stored_weights(folder)
    if config.n_layer > len(found):
        raise UsageError(
            f"{config_file} says {config.n_layer} layers, but the weights are only {len(found)} "
            "tensors; copy or download both files again"
        )
    layout = layout_of(config)
    shapes = shapes_to_hf(parameter_shapes(config), layout)
    found = _with_full_names(found, shapes)
    if config.tie_embeddings and "lm_head.weight" in found:
        head, embedding = found.pop("lm_head.weight"), f"{layout['tok_embed'].path}.weight"
        if embedding in found and not equal(head, found[embedding]):
            raise UsageError(
                f"in {folder} lm_head.weight is not the embedding, to which config.json ties it; "
                "set tie_word_embeddings to false there"
            )
    what = f"the weights in {folder} do not fit its config.json"
    remedy = "copy or download both files again"
    if shapes.keys() - found.keys() == {"lm_head.weight"}:
        remedy = "if the embedding is the head too, set tie_word_embeddings to true there"
    require_fit(found, shapes, what, remedy)
    return config, from_hf({key: one.numbers() for key, one in found.items()}, layout)


def unchanged_source(model: Transformer) -> str | None:
    """Where the base model was loaded from, or None if it has been trained since, or was made, or
    if its files are not what they were."""
    if model.loaded_from is None:
        return None
    own = base_arrays(model)
    fixed = {plain_path(name) for name, p in model.named_parameters() if p.fixed}
    try:
        in_blocks = model_place(model.loaded_from).suffix == ".gguf"  # then one at a time is whole
        stored = dict(load_model(model.loaded_from, quantized=in_blocks).named_parameters())
    except (OSError, UsageError):
        return None
    same = own.keys() == stored.keys() and all(
        np.array_equal(own[path].astype(np.float32, copy=False), stored[path].data)
        for path in own.keys() - fixed
    )
    return model.loaded_from if same else None


def layout_in(model: Transformer) -> Layout:
    """The counterpart of every module. Raises ValueError for one that no Transformer has."""
    if not isinstance(model, Transformer):
        raise TypeError(f"the model must be a Transformer, got {type(model).__name__}")
    layout = layout_of(model.config)
    strange = []
    for name, _ in model.named_parameters():
        owner, _, kind = plain_path(name).rpartition(".")
        known = kind in ("weight", "bias") and owner in layout
        strange += [] if known or ".adapters." in name else [name]
    if strange:
        raise UsageError(f"a plain Transformer has no {first_two(strange)}; remove what added them")
    return layout


def parameter_names(model: Module) -> dict[tuple[int, str], str]:
    """The name in the plain model of each parameter, by the module and attribute that hold it."""
    return {
        (id(module), attribute): f"{path}.{attribute}"
        for path, module in base_modules(model).items()
        for attribute, value in vars(module).items()
        if isinstance(value, Parameter)
    }


def base_arrays(model: Module, name: str | None = None) -> Arrays:
    """The base model's parameters, or (name) as one adapter has them, whichever is active. In the
    place of a weight in few bits stands NaN of its shape, which takes no memory."""
    arrays = {
        f"{path}.{attribute}": np.broadcast_to(np.float32(np.nan), p.shape) if p.fixed else p.data
        for path, module in base_modules(model).items()
        for attribute, p in vars(module).items()
        if isinstance(p, Parameter)
    }
    names = parameter_names(model)
    for adapter in adapters(model).values():
        arrays |= {names[id(c.owner), c.attribute]: c.original.data for c in adapter.copies}
    if name is not None:
        for c in adapters(model)[name].copies:
            arrays[names[id(c.owner), c.attribute]] = c.copy.data
    for path, layer in lora_layers(model).items():
        if layer.unmerged_weight is not None:
            arrays[f"{path}.weight"] = layer.unmerged_weight
    return arrays


def _with_full_names(tensors: StoredTensors, shapes: Shapes) -> StoredTensors:
    """Files of a bare GPT2Model or LlamaModel lack the first part of every name."""
    full = {k.partition(".")[2]: k for k in shapes if k.startswith(("transformer.", "model."))}
    return renamed(tensors, lambda key: full.get(key, key))
