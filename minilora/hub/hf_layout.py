"""Where each part of our Transformer lives in a Hugging Face GPT-2 or Llama.

One model, three layouts. A table translates the names; the shapes differ:
  ours     every weight (d_in, d_out); q, k and v apart
  GPT-2    the same, but q, k and v side by side in one c_attn (d, 3d)
  Llama    every weight of a Linear transposed, (d_out, d_in)
A model with another mix of switches has no counterpart there and keeps our own names and shapes.
Sources: modeling_gpt2.py and modeling_llama.py in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilora.hub.safetensors_files import Arrays, Shapes
from minilora.transformer import TransformerConfig

# "#" is the layer's number, ".T" a transposed weight, "[0]" the first third of the columns.
_TABLE = """
    ours                     gpt2                               llama
    tok_embed                transformer.wte                    model.embed_tokens
    pos_embed                transformer.wpe                    -
    layers.#                 transformer.h.#                    model.layers.#
    layers.#.attn_norm       transformer.h.#.ln_1               model.layers.#.input_layernorm
    layers.#.attn            transformer.h.#.attn               model.layers.#.self_attn
    layers.#.attn.q_proj     transformer.h.#.attn.c_attn[0]     model.layers.#.self_attn.q_proj.T
    layers.#.attn.k_proj     transformer.h.#.attn.c_attn[1]     model.layers.#.self_attn.k_proj.T
    layers.#.attn.v_proj     transformer.h.#.attn.c_attn[2]     model.layers.#.self_attn.v_proj.T
    layers.#.attn.o_proj     transformer.h.#.attn.c_proj        model.layers.#.self_attn.o_proj.T
    layers.#.mlp_norm        transformer.h.#.ln_2               model.layers.#.post_attention_layernorm
    layers.#.mlp             transformer.h.#.mlp                model.layers.#.mlp
    layers.#.mlp.gate_proj   -                                  model.layers.#.mlp.gate_proj.T
    layers.#.mlp.up_proj     transformer.h.#.mlp.c_fc           model.layers.#.mlp.up_proj.T
    layers.#.mlp.down_proj   transformer.h.#.mlp.c_proj         model.layers.#.mlp.down_proj.T
    norm                     transformer.ln_f                   model.norm
    head                     lm_head.T                          lm_head.T
"""  # noqa: E501


_COLUMN = {"qwen2": "llama"}  # the names are the same
# The switches of a Transformer that make it one of them; the last that fits is the one.
SWITCHES: dict[str, dict[str, Any]] = {
    "gpt2": dict(norm="layernorm", activation="gelu", positions="learned", bias=True),
    "llama": dict(norm="rmsnorm", activation="swiglu", positions="rope"),
    "qwen2": dict(norm="rmsnorm", activation="swiglu", positions="rope", bias="qkv"),
}


@dataclass(frozen=True)
class Counterpart:
    """What one of our modules is in the other layout."""

    path: str
    transposed: bool = False
    third: int | None = None  # of c_attn's columns: 0 is q, 1 is k, 2 is v


Layout = dict[str, Counterpart]  # by our path


def family(c: TransformerConfig) -> str:
    """ "gpt2", "llama", "qwen2" (a Llama with biases on q, k and v), or "minilora" for a mix of
    switches that none of them has."""
    kinds = [
        kind
        for kind, switches in SWITCHES.items()
        if all(getattr(c, name) == value for name, value in switches.items())
    ]
    plain_heads = c.kv_heads == c.n_head and c.n_head * c.head_size == c.n_embd
    return "minilora" if not kinds or (kinds == ["gpt2"] and not plain_heads) else kinds[-1]


def stores_transposed(c: TransformerConfig) -> bool:
    """Whether the weight of a Linear is (d_out, d_in) in the files of this family."""
    return family(c) in ("llama", "qwen2")


def layout_of(c: TransformerConfig) -> Layout:
    """The counterpart of every module that a model of this configuration has."""
    header, *rows = [line.split() for line in _TABLE.split("\n") if line.strip()]
    absent = {
        "pos_embed": c.positions != "learned",
        "layers.#.mlp.gate_proj": c.activation != "swiglu",
        "head": c.tie_embeddings,
    }
    layout: Layout = {}
    kind = family(c)
    for row in rows:
        ours = row[0]
        theirs = ours if kind == "minilora" else row[header.index(_COLUMN.get(kind, kind))]
        if not absent.get(ours):
            for i in map(str, range(c.n_layer if "#" in ours else 1)):
                layout[ours.replace("#", i)] = _parse(theirs.replace("#", i))
    return layout


def _parse(text: str) -> Counterpart:
    path, _, third = text.removesuffix("]").partition("[")
    transposed = path.endswith(".T")
    return Counterpart(path.removesuffix(".T"), transposed, int(third) if third else None)


def parameter_shapes(c: TransformerConfig) -> Shapes:
    """The shape of every parameter of a Transformer of this configuration, without making one."""
    C, hidden = c.n_embd, c.hidden
    wide, width = c.n_head * c.head_size, c.kv_heads * c.head_size
    weights: Shapes = {
        "tok_embed": (c.vocab_size, C),
        "pos_embed": (c.block_size, C),
        "attn_norm": (C,),
        "q_proj": (C, wide),
        "k_proj": (C, width),
        "v_proj": (C, width),
        "o_proj": (wide, C),
        "mlp_norm": (C,),
        "gate_proj": (C, hidden),
        "up_proj": (C, hidden),
        "down_proj": (hidden, C),
        "norm": (C,),
        "head": (C, c.vocab_size),
    }
    biased = {name: c.has_bias(name) for name in weights if name.endswith("_proj")}
    biased |= {name: c.norm == "layernorm" for name in weights if name.endswith("norm")}
    shapes: Shapes = {}
    for path in layout_of(c):
        name = path.rpartition(".")[2]
        if name in weights:
            shapes[f"{path}.weight"] = weights[name]
            if biased.get(name):
                shapes[f"{path}.bias"] = weights[name][-1:]
    return shapes


def to_hf(arrays: Mapping[str, np.ndarray], layout: Layout) -> Arrays:
    """Our parameters under their Hugging Face names and in their shapes.

    q, k and v of a layer must all be there where they are fused.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():  # in the model's own order, so q before k before v
        module, _, kind = name.rpartition(".")
        theirs = layout[module]
        array = array.T if theirs.transposed else array
        parts.setdefault(f"{theirs.path}.{kind}", []).append(array)
    return {  # 3 times (d, d) -> (d, 3d), and biases 3 times (d,) -> (3d,)
        key: some[0] if len(some) == 1 else np.concatenate(some, axis=-1)
        for key, some in parts.items()
    }


def shapes_to_hf(shapes: Shapes, layout: Layout) -> Shapes:
    """The shapes that to_hf would give to parameters of these shapes."""
    found: Shapes = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        theirs = layout[module]
        shape = shape[::-1] if theirs.transposed else shape
        if theirs.third is not None:
            shape = (*shape[:-1], 3 * shape[-1])  # (d, d) -> (d, 3d)
        found[f"{theirs.path}.{kind}"] = shape
    return found


def from_hf(tensors: Mapping[str, np.ndarray], layout: Layout) -> Arrays:
    """The inverse of to_hf; tensors for which we have no counterpart are left out."""
    found: Arrays = {}
    for module, theirs in layout.items():
        for kind in ("weight", "bias"):
            if (array := tensors.get(f"{theirs.path}.{kind}")) is not None:
                if theirs.third is not None:
                    array = np.split(array, 3, axis=-1)[theirs.third]  # (d, 3d) -> (d, d)
                found[f"{module}.{kind}"] = array.T if theirs.transposed else array
    return found
