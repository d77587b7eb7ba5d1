"""Adapters as folders: PEFT's adapter_config.json and adapter_model.safetensors.

We write ΔW = s A B with A (d_in, r) and B (r, d_out). The paper and PEFT write ΔW = s B A with
lora_A.weight (r, d_in) and lora_B.weight (d_out, r). The roles of A and B are the same, and so are
the numbers, transposed: lora_A.weight = A.T and lora_B.weight = B.T, for (A B).T = B.T A.T.
DoRA's m is lora_magnitude_vector (d_out).
Source: save_and_load.py of PEFT 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from minilora.hub.hf_layout import Places, family, from_hf, to_hf
from minilora.hub.models import base_arrays, places_in, slot_names
from minilora.hub.peft_layout import (
    Factors,
    adapters_from_hf,
    adapters_to_hf,
    factors_of,
    our_options,
    peft_options,
    read_options,
)
from minilora.hub.safetensors_files import (
    ADAPTER_FILES,
    Arrays,
    Shapes,
    read_json,
    read_safetensors,
    require_files,
    require_fit,
    write_folder,
)
from minilora.lora import active_adapter, adapters, add_adapter, lora_layers
from minilora.lora_config import LoraConfig
from minilora.nn import Linear, Module
from minilora.system.errors import UsageError
from minilora.transformer import Transformer

_PREFIX = "base_model.model."  # of every key of an adapter: PEFT wraps the model twice


def save_adapter(model: Transformer, folder: str | Path, name: str | None = None) -> None:
    """Write the active (or the named) adapter as PEFT's two files.

    Adapters of GPT-2's q, k and v become one of c_attn with the same ΔW. PiSSA and OLoRA are
    written as what they add to the whole of W, which is an adapter of twice the rank. Raises
    ValueError, and writes nothing, for an adapter that is not there, for NaN or infinity, where
    c_attn would have to be both adapted and trained whole, and for PiSSA or OLoRA beside a base
    that is no longer the one they started from.
    """
    name = name or active_adapter(model)
    if name is None or name not in adapters(model):
        known = ", ".join(adapters(model)) or "none (see add_adapter)"
        what = "active adapter" if name is None else f"adapter {name!r}"
        raise UsageError(f"there is no {what} to save; adapters of this model: {known}")
    config, where = adapters(model)[name].config, places_in(model)
    base = base_arrays(model)
    layers = {
        path: factors_of(layer, name, config.init_lora_weights, base[f"{path}.weight"])
        for path, layer in lora_layers(model).items()
        if name in layer.lora_A
    }
    factors = adapters_to_hf(layers, where, to_hf(base, where))
    copied = {slot_names(model)[id(s.owner), s.attribute] for s in adapters(model)[name].copies}
    whole = {where[n.removesuffix(".weight")].path for n in copied if n.endswith(".weight")}
    if both := sorted(whole & factors.keys()):
        raise UsageError(
            f"{', '.join(both)} fuses q, k and v, so these must either all be adapted or all be "
            "trained whole: change target_modules or modules_to_save"
        )
    tensors: Arrays = {}
    for path, f in factors.items():
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = f.A.T, f.B.T
        if f.m is not None:
            tensors[f"{path}.lora_magnitude_vector"] = f.m
    for key, array in to_hf(base_arrays(model, name), where).items():
        path, _, kind = key.rpartition(".")
        if path in whole or (kind == "bias" and _bias_trains(config.bias, path, factors)):
            tensors[f"{path}.base_layer.{kind}" if path in factors else key] = array
    written = peft_options(config, factors, whole, where) | {
        "fan_in_fan_out": family(model.config) != "llama"  # whether W is stored as (d_in, d_out)
    }
    tensors = {_PREFIX + key: array for key, array in tensors.items()}
    write_folder(Path(folder), ADAPTER_FILES, written, tensors, np.float32)


def load_adapter(model: Transformer, folder: str | Path, name: str = "default") -> None:
    """Add an adapter that minilora or PEFT wrote to the model, active and trainable.

    A c_attn adapter becomes three, for q, k and v, each with the same A and a third of B and of
    DoRA's m. All or nothing: raises FileNotFoundError or ValueError, which says what to do, and
    then the model is as it was.
    """
    folder = Path(folder)
    written = read_json(require_files(folder, ADAPTER_FILES))
    try:
        peft = read_options(written)
    except ValueError as error:
        raise UsageError(f"cannot load the adapter in {folder}: {error}") from None
    where, base = places_in(model), base_arrays(model)
    found = _without_wrappers(read_safetensors(folder / ADAPTER_FILES[1]))
    hf_base = to_hf(base, where)
    _drop_frozen_weights(found, hf_base)
    shapes = _adapter_shapes(model, where, peft, found, hf_base)
    c = model.config
    require_fit(
        found,
        shapes,
        f"the adapter in {folder} does not fit this model ({family(c)}, {c.n_layer} layers of "
        f"width {c.n_embd}); load the model it was trained on",
    )
    plain = from_hf(found, where)
    changed = {n.rpartition(".")[0] for n, v in plain.items() if not np.array_equal(v, base[n])}
    factors = {}
    for path in _adapted(found):
        A, B = found[f"{path}.lora_A.weight"].T, found[f"{path}.lora_B.weight"].T
        m = found.get(f"{path}.lora_magnitude_vector")
        factors[path] = Factors(A, B, peft.rank_and_scale(path)[1], m)
    keep = changed if peft.bias == "lora_only" else ()
    layers = adapters_from_hf(factors, where, hf_base, keep)
    whole = tuple(n.removesuffix(".weight") for n in plain if n.endswith(".weight"))
    add_adapter(model, our_options(peft, layers, whole), name, rng=np.random.default_rng(0))
    wrapped, names = lora_layers(model), slot_names(model)
    for path, f in layers.items():
        wrapped[path].lora_A[name].data[...] = f.A
        wrapped[path].lora_B[name].data[...] = f.B
        if f.m is not None:
            wrapped[path].lora_magnitude[name].data[...] = f.m
    for slot in adapters(model)[name].copies:
        slot.copy.data[...] = plain[names[id(slot.owner), slot.attribute]]


def _bias_trains(bias: str, path: str, adapted: Collection[str]) -> bool:
    return bias == "all" or (bias == "lora_only" and path in adapted)


def _adapted(found: Collection[str]) -> list[str]:
    ends = [re.fullmatch(r"(.+)\.lora_[AB]\.weight", key) for key in found]
    return sorted({end[1] for end in ends if end})


def _without_wrappers(tensors: Arrays) -> Arrays:
    """PEFT's keys as paths in the Hugging Face model. Where bias="all" meets modules_to_save, PEFT
    writes a bias three times: as trained, again in its wrapper, and as it was before."""
    return {
        re.sub(r"\.(base_layer|modules_to_save)\.", ".", key.removeprefix(_PREFIX)): array
        for key, array in tensors.items()
        if ".original_module." not in key
    }


def _drop_frozen_weights(found: Arrays, base: Arrays) -> None:
    """With the A and B of a head PEFT writes its frozen W. Raises ValueError for another's W."""
    for path in _adapted(found):
        key = f"{path}.weight"
        if key in found and not np.array_equal(found.pop(key), base.get(key, np.nan)):
            raise UsageError(f"the adapter was trained beside another {key}; load that model first")


def _adapter_shapes(
    model: Module, where: Places, peft: LoraConfig, found: Arrays, base: Arrays
) -> Shapes:
    """The keys and shapes that an adapter of these options, for these layers, must have.

    The layers are those in the file. Raises ValueError for modules that this model does not have.
    """
    linears = {p.removesuffix(".base") for p, m in model.named_modules() if isinstance(m, Linear)}
    transposed = {where[path].path: where[path].transposed for path in linears}
    adapted = _adapted(found)
    shapes: Shapes = {}
    for path in adapted:
        if path in transposed:
            r, shape = peft.rank_and_scale(path)[0], base[f"{path}.weight"].shape
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
            raise UsageError(f"modules_to_save={word!r} of the adapter is not in this model")
        whole |= inside
    for key, array in base.items():
        path, _, kind = key.rpartition(".")
        if path in whole or (kind == "bias" and _bias_trains(peft.bias, path, adapted)):
            shapes[key] = array.shape
    if not adapted:
        raise UsageError("the adapter holds no lora_A and lora_B: it was not saved as LoRA")
    return shapes


def _is_in(path: str, word: str) -> bool:
    """Whether the path of this module, or of one that holds it, ends in a word."""
    words = path.split(".")
    return any(".".join(words[:n]).endswith(word) for n in range(1, len(words) + 1))
