"""Reading and writing adapters: PEFT's adapter_config.json and adapter_model.safetensors.

Here an adapter of a model becomes files and files an adapter; what does not fit the model is
refused before the model is touched. peft_layout.py knows the names and shapes of the tensors,
peft_options.py what the options mean.
Source: utils/save_and_load.py of PEFT 0.21.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minilora.hub.hf_layout import (
    Layout,
    family,
    from_hf,
    shapes_to_hf,
    stores_transposed,
    to_hf,
)
from minilora.hub.models import base_arrays, layout_in, parameter_names, unchanged_source
from minilora.hub.peft_layout import (
    Factors,
    adapted_paths,
    adapters_from_hf,
    adapters_to_hf,
    factors_in,
    to_peft,
    without_wrappers,
)
from minilora.hub.peft_options import (
    DEFAULT_TARGETS,
    named_paths,
    our_options,
    read_options,
    written_options,
)
from minilora.hub.safetensors_files import (
    ADAPTER_FILES,
    Arrays,
    Shapes,
    first_two,
    require_fit,
)
from minilora.hub.saves import read_adapter_files, read_config_file, write_folder
from minilora.lora import active_adapter, adapters, add_adapter, lora_layers
from minilora.lora_config import DEFAULT, LoraConfig
from minilora.lora_targets import base_modules
from minilora.nn import Linear, Module
from minilora.system.errors import UsageError, brief
from minilora.system.files import usable_path
from minilora.transformer import Transformer


def save_adapter(model: Transformer, folder: str | Path, name: str | None = None) -> None:
    """Write the active (or the named) adapter as PEFT's two files.

    Adapters of GPT-2's q, k and v become one of c_attn with the same ΔW. PiSSA and OLoRA are
    written as what they add to the whole of W, which is an adapter of twice the rank. Where the
    base was loaded from is recorded, unless its weights have changed since.

    Raises ValueError, and writes nothing, for an adapter that is not there, for NaN or infinity,
    where c_attn would have to be both adapted and trained whole, and for PiSSA or OLoRA beside a
    base that is no longer the one they started from.
    """
    layout, folder = layout_in(model), usable_path(folder)
    name = active_adapter(model) if name is None else name
    if name is None or name not in list(adapters(model)):
        known = ", ".join(adapters(model)) or "none (see add_adapter)"
        what = "active adapter" if name is None else f"adapter {name!r}"
        raise UsageError(f"there is no {what} to save; adapters of this model: {known}")
    config, base, layers = adapters(model)[name].config, base_arrays(model), {}
    for path, layer in lora_layers(model).items():
        if one := layer.adapters.get(name):
            layers[path] = Factors(scale=one.s, **one.factors(layer.original_weight()))
    factors = adapters_to_hf(layers, layout, to_hf(base, layout))
    names = parameter_names(model)
    copied = {names[id(c.owner), c.attribute] for c in adapters(model)[name].copies}
    whole = {layout[n.removesuffix(".weight")].path for n in copied if n.endswith(".weight")}
    if both := sorted(whole & factors.keys()):
        raise UsageError(
            f"{first_two(both)} fuses q, k and v, so these must either all be adapted or all be "
            "trained whole: change target_modules or modules_to_save"
        )
    trained: Arrays = {}
    for key, array in to_hf(base_arrays(model, name), layout).items():
        path, _, kind = key.rpartition(".")
        if path in whole or (kind == "bias" and _bias_trains(config.bias, path, factors)):
            trained[key] = array
    options = written_options(config, factors, whole, layout) | {
        "base_model_name_or_path": unchanged_source(model),
        "fan_in_fan_out": not stores_transposed(model.config),
    }
    write_folder(folder, ADAPTER_FILES, options, to_peft(factors, trained), np.float32)


def load_adapter(model: Transformer, folder: str | Path, name: str = DEFAULT) -> None:
    """Add an adapter that minilora or PEFT wrote to the model, active and trainable.

    A c_attn adapter becomes three, for q, k and v, each with the same A and a third of B and of
    DoRA's m. All or nothing: raises FileNotFoundError or ValueError, which says what to do, and
    then the model is as it was.
    """
    layout, folder = layout_in(model), usable_path(folder)
    written, tensors = read_adapter_files(folder)
    base = base_arrays(model)
    with _naming(folder):
        peft = read_options(written)
        found = without_wrappers({key: one.numbers() for key, one in tensors.items()})
        _refuse_embeddings(model, found, peft)
        hf_base = _needed(base, layout, found, peft)
        _drop_frozen_weights(model, found, peft, hf_base)
        hf_shapes = shapes_to_hf({name: array.shape for name, array in base.items()}, layout)
        shapes = _adapter_shapes(model, layout, peft, found, hf_shapes)
        what = f"the adapter in {folder} {_misfit(model, written)}"
        require_fit(found, shapes, what, "load the model it was trained on")
        missing = _not_in_file(model, layout, found, written, peft)

        trained = from_hf(found, layout)  # biases, and modules that were trained whole
        whole = tuple(n.removesuffix(".weight") for n in trained if n.endswith(".weight"))
        keep = set()
        if peft.bias == "lora_only":  # a bias that changed belongs to a layer that was adapted
            changed = [n for n, array in trained.items() if not np.array_equal(array, base[n])]
            keep = {n.rpartition(".")[0] for n in changed}
        layers = adapters_from_hf(factors_in(found, peft), layout, hf_base, keep)
        add_adapter(model, our_options(peft, layers, whole), name, rng=np.random.default_rng(0))
    adapted, names = lora_layers(model), parameter_names(model)
    for path, factors in layers.items():
        for part, p in adapted[path].adapters[name].named_parameters():
            p.data[...] = getattr(factors, part)
    for copied in adapters(model)[name].copies:
        copied.copy.data[...] = trained[names[id(copied.owner), copied.attribute]]
    if missing:
        warnings.warn(
            f"the adapter in {folder} has no tensors for {first_two(missing)}, which its "
            "target_modules name: there the model stays as it was",
            stacklevel=2,
        )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Within it, a UsageError that does not name the folder says that its adapter is meant."""
    try:
        yield
    except UsageError as error:
        if str(folder) in str(error):
            raise
        raise UsageError(f"cannot load the adapter in {folder}: {error}") from None


def adapter_base(folder: str | Path) -> str | None:
    """The model that an adapter was trained on, as load_model takes it, or None if it was not
    recorded. Raises what load_adapter raises for files that are missing or damaged."""
    written = read_config_file(usable_path(folder), ADAPTER_FILES)
    return _base_in(written)


def _base_in(written: Mapping[str, Any]) -> str | None:
    base = written.get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def _misfit(model: Transformer, written: Mapping[str, Any]) -> str:
    """Which model the adapter was trained on, if that is recorded, and which one this is."""
    c, base = model.config, _base_in(written)
    sizes = f"({family(c)}, {c.n_layer} layers of width {c.n_embd})"
    if base is None or base == model.loaded_from:
        return f"does not fit this model {sizes}"
    return f"was trained on {base}, this is {model.loaded_from or 'another model'} {sizes}"


def _bias_trains(bias: str, path: str, adapted: Collection[str]) -> bool:
    return bias == "all" or (bias == "lora_only" and path in adapted)


def _tied_head(model: Transformer) -> str | None:
    """The path that PEFT has for a head which is the embedding, and so no module of ours."""
    if not model.config.tie_embeddings:
        return None
    return "head" if family(model.config) == "minilora" else "lm_head"


def _refuse_embeddings(model: Transformer, found: Arrays, peft: LoraConfig) -> None:
    """Raise ValueError for adapters of an embedding, and of a head that is the embedding."""
    embeddings = [key.partition(".lora_embedding_") for key in sorted(found)]
    if paths := sorted({path for path, _, rest in embeddings if rest}):
        raise UsageError(
            f"it adapts {first_two(paths)}, but LoRA of an embedding is not supported; "
            "train one whose target_modules are Linear layers"
        )
    head = _tied_head(model)
    if head in adapted_paths(found) or head in peft.modules_to_save:
        raise UsageError(
            f"it trains {head}, but the head is tied here, to the embedding; load the "
            "base model saved with tie_word_embeddings=False"
        )


def _needed(base: Arrays, layout: Layout, found: Arrays, peft: LoraConfig) -> Arrays:
    """The base's arrays, under their keys in the Hugging Face model, that an adapter is compared
    with, and no others: q, k and v side by side are a copy."""
    keys = set(found)
    if peft.use_dora:  # needs ‖W‖
        keys |= {f"{path}.weight" for path in adapted_paths(found)}
    needed = {}
    for name, array in base.items():
        module, _, kind = name.rpartition(".")
        if f"{layout[module].path}.{kind}" in keys:
            needed[name] = array
    return to_hf(needed, layout)


def _drop_frozen_weights(model: Transformer, found: Arrays, peft: LoraConfig, base: Arrays) -> None:
    """Take out what PEFT writes although it did not train: the W of an adapted head, and with
    save_embedding_layers the embeddings. Raises ValueError if they are another model's."""
    adapted, head = adapted_paths(found), _tied_head(model)
    if head is not None:
        base = base | {f"{head}.weight": model.tok_embed.weight.data}
    for key in [key for key in found if key.endswith(".weight") and key in base]:
        path = key.removesuffix(".weight")
        if any(_is_in(path, word) for word in peft.modules_to_save):
            continue
        if np.array_equal(found[key], base[key]):
            del found[key]
        elif path in adapted or path == head:
            raise UsageError(f"it was trained beside another {key}; load that model first")


def _adapter_shapes(
    model: Module, layout: Layout, peft: LoraConfig, found: Arrays, base: Shapes
) -> Shapes:
    """The keys and shapes that an adapter of these options, for these layers, must have.

    The layers are those in the file. Raises ValueError for modules that this model does not have.
    """
    linears = {path for path, m in base_modules(model).items() if isinstance(m, Linear)}
    transposed = {layout[path].path: layout[path].transposed for path in linears}
    adapted = adapted_paths(found)
    shapes: Shapes = {}
    for path in adapted:
        if path in transposed:
            r, shape = peft.rank_and_scale(path)[0], base[f"{path}.weight"]
            d_in, d_out = reversed(shape) if transposed[path] else shape
            shapes[f"{path}.lora_A.weight"] = (r, d_in)
            shapes[f"{path}.lora_B.weight"] = (d_out, r)
            shapes |= {f"{path}.lora_magnitude_vector": (d_out,)} if peft.use_dora else {}
    whole = {
        key.removesuffix(".weight") for key in found if key.endswith(".weight") and key in base
    }
    paths = {key.rpartition(".")[0] for key in base}
    for word in peft.modules_to_save:  # PEFT saves every module whose path ends in this word
        inside = {word} & paths or {path for path in paths if _is_in(path, word)}
        if not inside:
            raise UsageError(
                f"it trains {brief(word)} (modules_to_save), which this model does not have; "
                "load the model it was trained on"
            )
        whole |= inside
    for key, shape in base.items():
        path, _, kind = key.rpartition(".")
        if path in whole or (kind == "bias" and _bias_trains(peft.bias, path, adapted)):
            shapes[key] = shape
    if not adapted:
        raise UsageError("it holds no lora_A and lora_B: it was not saved as LoRA")
    return shapes


def _not_in_file(
    model: Transformer, layout: Layout, found: Arrays, written: Mapping[str, Any], peft: LoraConfig
) -> list[str]:
    """The modules that the adapter's options name, but for which it has no tensors.

    Raises ValueError for tensors of modules that they do not name: PEFT leaves these out, in
    silence.
    """
    if written.get("target_modules") is None:
        if family(model.config) not in DEFAULT_TARGETS:
            return []
        peft = replace(peft, target_modules=DEFAULT_TARGETS[family(model.config)])
    linears = [
        layout[path].path for path, m in base_modules(model).items() if isinstance(m, Linear)
    ]
    head = _tied_head(model) or layout["head"].path
    named = named_paths(written, peft, dict.fromkeys([*linears, head]), head)
    if strange := [path for path in adapted_paths(found) if path not in named]:
        raise UsageError(
            f"it holds tensors for {first_two(strange)}, which its options do not name "
            "(target_modules, exclude_modules, layers_to_transform), so that PEFT would leave them "
            "out; correct the one or the other"
        )
    return sorted(named - {*adapted_paths(found)})


def _is_in(path: str, word: str) -> bool:
    """Whether the path of this module, or of one that holds it, ends in a word."""
    words = path.split(".")
    return any(".".join(words[:n]).endswith(word) for n in range(1, len(words) + 1))
