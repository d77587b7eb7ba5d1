"""Models of every layout, and ways to change what was saved of them, for the tests of files."""

import json
import re

import numpy as np
from builders import tiny
from safetensors.numpy import load_file, save_file

import minilora as ml
from minilora.hub import load_adapter, load_model
from minilora.hub.models import parameter_names
from minilora.hub.safetensors_files import ADAPTER_FILES, MODEL_FILES
from minilora.lora import active_adapter, adapters, lora_layers
from minilora.rope_scaling import RopeScaling

V, T, C = 11, 6, 8
IDS = np.random.default_rng(3).integers(0, V, (2, T))
SCALED = RopeScaling("linear", 2.5)
KINDS = {
    "gpt2": ("gpt2", {}),
    "gpt2-untied": ("gpt2", dict(tie_embeddings=False, mlp_hidden=12, norm_eps=1e-3, dropout=0.25)),
    "llama": ("llama", dict(mlp_hidden=10, dropout=0.25)),
    "llama-tied": (
        "llama",
        dict(n_kv_head=None, mlp_hidden=None, rope_theta=77.0, norm_eps=1e-3, tie_embeddings=True),
    ),
    "qwen2": ("llama", dict(bias="qkv", rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 5))),
    "llama-wide": ("llama", dict(bias=True, head_dim=6, rope_scaling=SCALED)),
    "mixed-wide": (
        "gpt2",
        dict(positions="rope", head_dim=6, rope_scaling=SCALED),
    ),
    "mixed": ("gpt2", dict(activation="swiglu", positions="rope", n_kv_head=2, dropout=0.25)),
    "mixed-untied": ("gpt2", dict(norm="rmsnorm", tie_embeddings=False)),
}
PREFIX = "base_model.model."  # of every key of an adapter
FILES = {"model": MODEL_FILES, "adapter": ADAPTER_FILES}


def make(kind="gpt2", seed=0, **changes):
    """A model in which every parameter is random, so that none can pass for another."""
    family, options = KINDS[kind]
    sizes = dict(vocab_size=V, block_size=T, n_embd=C, mlp_hidden=None)
    return tiny(family, seed, **sizes | options | changes)


def adapt(model, name="default", seed=1, **options):
    """Add an adapter in which everything that trains is random."""
    config = ml.LoraConfig(**dict(r=2, lora_alpha=3) | options)
    ml.add_adapter(model, config, name, rng=np.random.default_rng(seed))
    for i, p in enumerate(model.trainable_parameters()):
        p.data[...] += np.random.default_rng([seed, i]).standard_normal(p.shape) * 0.3
    return model


def logits(model):
    with ml.no_grad():
        return model(IDS).data


def same_logits(a, b):
    return logits(a).tobytes() == logits(b).tobytes()


def same(a, b):
    """Whether two dicts of arrays are equal bit for bit."""
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def own_numbers(model, name="default"):
    """An adapter's own numbers, by path."""
    found = {}
    for path, layer in lora_layers(model).items():
        if name in layer.adapters:
            one = layer.adapters[name]
            found |= {f"{path}.{key}": p.data for key, p in one.named_parameters()}
            found[f"{path}.s"] = np.float32(one.s)
    names = parameter_names(model)
    copies = adapters(model)[name].copies
    return found | {names[id(c.owner), c.attribute]: c.copy.data for c in copies}


def snapshot(model):
    """Everything that a failed load must leave alone."""
    parameters = [
        (n, id(p), p.requires_grad, p.data.tobytes()) for n, p in model.named_parameters()
    ]
    modules = [(path, id(m)) for path, m in model.named_modules()]
    return parameters, modules, active_adapter(model), list(adapters(model))


def load_any(which, folder, kind="gpt2"):
    return load_model(folder) if which == "model" else load_adapter(make(kind), folder)


def loaded_with(kind, folder):
    """A fresh model of this kind with the adapter that is in the folder."""
    model = make(kind)
    load_adapter(model, folder)
    return model


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(folder, which="model"):
    config, weights = FILES[which]
    return json.loads((folder / config).read_text()), load_file(folder / weights)


def rewrite(folder, which="model", config=(), drop=(), tensors=(), rename=None):
    """Change a saved folder: entries of its JSON, keys to drop, tensors to put in, new names."""
    data, arrays = read(folder, which)
    data = {k: v for k, v in (data | dict(config)).items() if k not in drop}
    arrays = {k: v for k, v in (arrays | dict(tensors)).items() if k not in drop}
    arrays = {re.sub(*rename, k) if rename else k: v for k, v in arrays.items()}
    config_file, weights = FILES[which]
    (folder / config_file).write_text(json.dumps(data))
    save_file(arrays, folder / weights, metadata={"format": "pt"})
