"""Models and adapters as files: safetensors and JSON, in the layouts of Hugging Face and PEFT.

A model is a folder with config.json and model.safetensors, which transformers loads as GPT-2 or
Llama if it is one. An adapter is a folder with PEFT's adapter_config.json and
adapter_model.safetensors. Nothing is ever pickled: opening a pickle can run any code.

We write ΔW = s A B with A (d_in, r) and B (r, d_out). The paper and PEFT write ΔW = s B A with
lora_A.weight (r, d_in) and lora_B.weight (d_out, r). The roles of A and B are the same, and so are
the numbers, transposed: lora_A.weight = A.T and lora_B.weight = B.T, for (A B).T = B.T A.T.
DoRA's m is lora_magnitude_vector (d_out).
Sources: the safetensors format; lora/config.py and save_and_load.py of PEFT 0.21.
Imports transformer.py, lora.py, lora_config.py, nn.py, hf_layouts.py, peft_layouts.py, files.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from minilora.hub.hf_layout import (
    Arrays,
    Places,
    family,
    from_hf,
    hf_config,
    our_config,
    places,
    to_hf,
)
from minilora.hub.peft_layout import (
    Factors,
    adapters_from_hf,
    adapters_to_hf,
    factors_of,
    our_options,
    peft_options,
    read_options,
)
from minilora.lora import active_adapter, adapters, add_adapter, lora_layers
from minilora.lora_config import LoraConfig
from minilora.nn import Linear, Module, Parameter
from minilora.system.errors import UsageError
from minilora.system.files import write_atomically
from minilora.transformer import Transformer

ASSETS = Path(__file__).parents[1] / "assets"
_MODEL = ("config.json", "model.safetensors")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_PREFIX = "base_model.model."  # of every key of an adapter: PEFT wraps the model twice
_BUFFERS = re.compile(r"(.*\.)?(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)")  # constants
Shapes = dict[str, tuple[int, ...]]


def save_model(model: Transformer, folder: str | Path, *, dtype: Any = np.float32) -> None:
    """Write config.json and model.safetensors: a GPT2LMHeadModel or LlamaForCausalLM if the model
    is one, else a layout of our own (model_type "minilora"). A tied head is not written.

    dtype: np.float32, or np.float16 for half the size. Raises ValueError, and writes nothing, for a
    model with adapters, for NaN or infinity, and for numbers that float16 cannot hold.
    """
    if adapters(model):
        raise UsageError(
            f"the model has adapters ({', '.join(adapters(model))}): call merge_and_unload(model) "
            "first, or save_adapter(model, folder) to keep only what was trained"
        )
    if np.dtype(dtype) not in (np.float32, np.float16):
        raise UsageError(f"dtype must be np.float32 or np.float16, got {np.dtype(dtype)}")
    where = _places_in(model)
    config = hf_config(model.config, np.dtype(dtype).name)
    _write(Path(folder), _MODEL, config, to_hf(_values(model), where), dtype)


def load_model(name_or_folder: str | Path) -> Transformer:
    """A Transformer in float32, from a bundled name or from a folder with a GPT-2 or Llama, whether
    minilora or transformers wrote it, in float16, bfloat16 or float32, in one file or in shards.

    Raises FileNotFoundError for what is not there, and ValueError for damaged files, for a model
    that ours cannot compute, and for weights that do not fit it, naming every key and both shapes.
    """
    bundled = {path.parent.name: path.parent for path in ASSETS.glob("*/config.json")}
    folder = bundled.get(str(name_or_folder), Path(name_or_folder))
    if not folder.is_dir():
        known = ", ".join(sorted(bundled)) or "none"
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; bundled models: {known}")
    config_file = _require_files(folder, _MODEL)
    try:
        config = our_config(_read_json(config_file))
    except ValueError as error:
        raise UsageError(f"cannot load {config_file}: {error}") from None
    model, where = Transformer(config, rng=np.random.default_rng(0)), places(config)
    shapes = {key: array.shape for key, array in to_hf(_values(model), where).items()}
    found = _with_full_names(_read_weights(folder), shapes)
    if config.tie_embeddings and "lm_head.weight" in found:
        head, embedding = found.pop("lm_head.weight"), f"{where['tok_embed'].path}.weight"
        if embedding in found and not np.array_equal(head, found[embedding]):
            raise UsageError(
                f"in {folder} lm_head.weight is not the embedding, to which config.json ties it; "
                "set tie_word_embeddings to false there"
            )
    _require_fit(found, shapes, f"the weights in {folder} do not fit its config.json")
    model.load_state_dict(from_hf(found, where))
    return model


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
    config, where = adapters(model)[name].config, _places_in(model)
    base = _values(model)
    layers = {
        path: factors_of(layer, name, config.init_lora_weights, base[f"{path}.weight"])
        for path, layer in lora_layers(model).items()
        if name in layer.lora_A
    }
    factors = adapters_to_hf(layers, where, to_hf(base, where))
    copied = {_slot_names(model)[id(s.owner), s.attribute] for s in adapters(model)[name].copies}
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
    for key, array in to_hf(_values(model, name), where).items():
        path, _, kind = key.rpartition(".")
        if path in whole or (kind == "bias" and _bias_trains(config.bias, path, factors)):
            tensors[f"{path}.base_layer.{kind}" if path in factors else key] = array
    written = peft_options(config, factors, whole, where) | {
        "fan_in_fan_out": family(model.config) != "llama"  # whether W is stored as (d_in, d_out)
    }
    tensors = {_PREFIX + key: array for key, array in tensors.items()}
    _write(Path(folder), _ADAPTER, written, tensors, np.float32)


def load_adapter(model: Transformer, folder: str | Path, name: str = "default") -> None:
    """Add an adapter that minilora or PEFT wrote to the model, active and trainable.

    A c_attn adapter becomes three, for q, k and v, each with the same A and a third of B and of
    DoRA's m. All or nothing: raises FileNotFoundError or ValueError, which says what to do, and
    then the model is as it was.
    """
    folder = Path(folder)
    written = _read_json(_require_files(folder, _ADAPTER))
    try:
        peft = read_options(written)
    except ValueError as error:
        raise UsageError(f"cannot load the adapter in {folder}: {error}") from None
    where, base = _places_in(model), _values(model)
    found = _without_wrappers(_read_safetensors(folder / _ADAPTER[1]))
    hf_base = to_hf(base, where)
    _drop_frozen_weights(found, hf_base)
    shapes = _adapter_shapes(model, where, peft, found, hf_base)
    c = model.config
    _require_fit(
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
    wrapped, names = lora_layers(model), _slot_names(model)
    for path, f in layers.items():
        wrapped[path].lora_A[name].data[...] = f.A
        wrapped[path].lora_B[name].data[...] = f.B
        if f.m is not None:
            wrapped[path].lora_magnitude[name].data[...] = f.m
    for slot in adapters(model)[name].copies:
        slot.copy.data[...] = plain[names[id(slot.owner), slot.attribute]]


def _places_in(model: Transformer) -> Places:
    """The Place of every module. Raises ValueError for one that a Transformer does not have."""
    where = places(model.config)
    strange = []
    for name, _ in model.named_parameters():
        holder, _, kind = name.rpartition(".")
        owner = re.sub(r"\.(base|lora_(A|B|magnitude))$", "", holder)
        known = kind in ("weight", "bias") or ".lora_" in holder
        strange += [] if known and owner in where else [name]
    if strange:
        raise UsageError(f"a plain Transformer has no {', '.join(strange)}; remove what added them")
    return where


def _slot_names(model: Module) -> dict[tuple[int, str], str]:
    """The name of each of the base model's parameters, by the module and attribute that hold it."""
    return {
        (id(module), attribute): f"{path.removesuffix('.base')}.{attribute}"
        for path, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Parameter)
    }


def _values(model: Module, name: str | None = None) -> Arrays:
    """The base model's parameters, or (name) as one adapter has them, whichever is active."""
    kept = [(s, s.original) for adapter in adapters(model).values() for s in adapter.copies]
    kept += [(s, s.copy) for s in adapters(model)[name].copies] if name else []
    instead = {(id(slot.owner), slot.attribute): p for slot, p in kept}
    values = {}
    for path, module in model.named_modules():
        for attribute, p in vars(module).items():
            if isinstance(p, Parameter):
                p = instead.get((id(module), attribute), p)
                values[f"{path.removesuffix('.base')}.{attribute}"] = p.data
    for path, layer in lora_layers(model).items():
        if layer.unmerged_weight is not None:
            values[f"{path}.weight"] = layer.unmerged_weight
    return values


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


def _require_fit(found: Arrays, shapes: Shapes, what: str) -> None:
    wrong = [f"missing {key} {shape}" for key, shape in shapes.items() if key not in found]
    wrong += [f"unexpected {key} {a.shape}" for key, a in found.items() if key not in shapes]
    wrong += [
        f"{key} is {found[key].shape} where {shape} is needed"
        for key, shape in shapes.items()
        if key in found and found[key].shape != shape
    ]
    if wrong:
        raise UsageError(f"{what}: " + "; ".join(wrong))


def _require_files(folder: Path, names: tuple[str, str]) -> Path:
    """The path of the config, once both files are known to be there. Raises FileNotFoundError."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    weights = (names[1], f"{names[1]}.index.json")
    missing = [] if (folder / names[0]).is_file() else [names[0]]
    missing += [] if any((folder / w).is_file() for w in weights) else [names[1]]
    hint = ""
    pickles = sorted(p.name for p in folder.glob("*model*.bin"))
    if pickles and names[1] in missing:
        hint = (
            f", and its {', '.join(pickles)} is a pickle, which is not opened as it can run any "
            "code: load it in transformers or PEFT and save it as safetensors with save_pretrained"
        )
    elif inner := sorted(p.parent.name for p in folder.glob(f"*/{names[0]}")):
        hint = f"; but these sub-folders of it have: {', '.join(inner)}"
    elif names == _MODEL and (folder / _ADAPTER[0]).is_file():
        hint = "; it is an adapter: load its model, then load_adapter(model, folder)"
    elif names == _ADAPTER and (folder / _MODEL[0]).is_file():
        hint = "; it is a model: load_model(folder)"
    if missing:
        raise FileNotFoundError(f"{folder} has no {' and no '.join(missing)}{hint}")
    return folder / names[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); copy or download it again") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} is damaged (no JSON object); copy or download it again")
    return data


def _read_weights(folder: Path) -> Arrays:
    if (folder / _MODEL[1]).is_file():
        return _read_safetensors(folder / _MODEL[1])
    index = folder / f"{_MODEL[1]}.index.json"
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise UsageError(f"{index} is damaged (no weight_map); copy or download it again")
    tensors: Arrays = {}
    for shard in sorted({str(name) for name in shards.values()}):
        tensors |= _read_safetensors(folder / Path(shard).name)
    return tensors


def _read_safetensors(path: Path) -> Arrays:
    """All tensors of a file as float32, without the constants that old files hold."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy or download it again")
    try:
        content = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged ({error}); copy or download it again") from None
    tensors = {k: _float32(k, v, path) for k, v in content if not _BUFFERS.fullmatch(k)}
    _require_finite(tensors, f"in {path}")
    return tensors


def _float32(key: str, raw: Mapping[str, Any], path: Path) -> np.ndarray:
    kind, shape = raw["dtype"], raw["shape"]
    if kind == "BF16":  # the upper half of a float32, a type that NumPy does not have
        upper = np.frombuffer(raw["data"], "<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    if kind not in ("F16", "F32", "F64"):
        raise UsageError(
            f"{key} in {path} is stored as {kind}, which is not supported; save it as float32"
        )
    return np.frombuffer(raw["data"], f"<f{int(kind[1:]) // 8}").astype(np.float32).reshape(shape)


def _require_finite(tensors: Arrays, where: str) -> None:
    bad = [key for key, array in tensors.items() if not np.isfinite(array).all()]
    if bad:
        raise UsageError(f"NaN or infinity {where}: {', '.join(bad)}; use an earlier checkpoint")


def _with_full_names(tensors: Arrays, shapes: Shapes) -> Arrays:
    """Files of a bare GPT2Model or LlamaModel lack the first part of every name."""
    full = {k.partition(".")[2]: k for k in shapes if k.startswith(("transformer.", "model."))}
    return {full.get(key, key): array for key, array in tensors.items()}


def _write(
    folder: Path, names: tuple[str, str], config: dict[str, Any], tensors: Arrays, dtype: Any
) -> None:
    """Write both files, each whole or not at all, and the weights first."""
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    with np.errstate(over="ignore"):
        stored = {key: np.ascontiguousarray(array, dtype) for key, array in tensors.items()}
    _require_finite(stored, f"would be saved as {np.dtype(dtype)}")
    content = save(stored, {"format": "pt"})

    def write_both(path: Path) -> None:
        path.write_bytes(content)
        write_atomically(folder / names[0], lambda p: p.write_text(text, encoding="utf-8"))

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder to save in")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / names[1], write_both)
