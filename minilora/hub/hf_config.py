"""config.json: what a Hugging Face GPT-2 or Llama says of itself, and what it is as a Transformer.

A table translates the names of the sizes. Whatever else changes what is computed must have the one
value that our model computes: a model that would come out different is refused by name.
Sources: configuration_gpt2.py and configuration_llama.py in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, get_type_hints

from minilora.hub.hf_layout import SWITCHES, family
from minilora.hub.safetensors_files import first_two
from minilora.system.errors import UsageError
from minilora.transformer import TransformerConfig

_TABLE = """
    ours             gpt2                  llama
    vocab_size       vocab_size            vocab_size
    block_size       n_positions           max_position_embeddings
    n_layer          n_layer               num_hidden_layers
    n_head           n_head                num_attention_heads
    n_embd           n_embd                hidden_size
    n_kv_head        -                     num_key_value_heads
    mlp_hidden       n_inner               intermediate_size
    norm_eps         layer_norm_epsilon    rms_norm_eps
    dropout          resid_pdrop           resid_pdrop
    tie_embeddings   tie_word_embeddings   tie_word_embeddings
"""  # Llama has no resid_pdrop: it stands there for us, and transformers passes over it

_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast")
# Options of which we compute only one kind: what we write, then what else means the same.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": _TANH_GELUS,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "add_cross_attention": (False, None),
        "quantization_config": (None,),
    },
    "llama": {
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "partial_rotary_factor": (None, 1),
        "quantization_config": (None,),
    },
    "minilora": {},
}
# What a config.json means that leaves these out, where it is not what we would mean.
_DEFAULTS = {"gpt2": {}, "llama": {"norm_eps": 1e-6, "tie_embeddings": False}, "minilora": {}}
_REQUIRED = ["vocab_size", "block_size", "n_layer", "n_head", "n_embd"]


def _config_names(kind: str) -> dict[str, str]:
    """Our name -> the family's name."""
    if kind == "minilora":
        return {f.name: f.name for f in fields(TransformerConfig)}
    header, *rows = [line.split() for line in _TABLE.split("\n") if line.strip()]
    column = header.index(kind)
    return {row[0]: row[column] for row in rows if row[column] != "-"}


def written_config(c: TransformerConfig, dtype: str) -> dict[str, Any]:
    """The content of config.json."""
    kind = family(c)
    values = asdict(c) | ({"mlp_hidden": c.hidden} if kind == "llama" else {})
    data = {theirs: values[ours] for ours, theirs in _config_names(kind).items()}
    data |= {"model_type": kind, "dtype": dtype}
    data |= {key: allowed[0] for key, allowed in _FIXED[kind].items() if allowed[0] is not None}
    if kind != "minilora":
        data |= {"bos_token_id": None, "eos_token_id": None}  # not transformers' 50256, 1 and 2
    if kind == "gpt2":
        data |= {"architectures": ["GPT2LMHeadModel"], "n_ctx": c.block_size}
        data |= {"embd_pdrop": c.dropout, "attn_pdrop": 0.0}
    if kind == "llama":
        data |= {"architectures": ["LlamaForCausalLM"], "attention_dropout": 0.0}
        data |= {"rope_theta": c.rope_theta}  # before transformers 5; since then, the next line
        data |= {"rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta}}
    return data


def read_config(data: Mapping[str, Any]) -> TransformerConfig:
    """The configuration that a config.json describes.

    Raises ValueError naming what our model cannot do, what is missing, and what has a wrong type.
    """
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in _FIXED:
        raise UsageError(f"model_type={kind!r} cannot be loaded; supported: {', '.join(_FIXED)}")
    for key, allowed in _FIXED[kind].items():
        if key in data and data[key] not in allowed:
            raise UsageError(f"{key}={data[key]!r} is not supported, only {allowed[0]!r}")
    names = _config_names(kind)
    if missing := [names[ours] for ours in _REQUIRED if names[ours] not in data]:
        raise UsageError(f"it lacks {', '.join(missing)}")
    strange = sorted(data.keys() - {*names, "model_type", "dtype"})
    if kind == "minilora" and strange:  # another version's: it may change what is computed
        raise UsageError(f"it has fields that are not known: {first_two(strange)}")
    values = _DEFAULTS[kind] | {o: data[t] for o, t in names.items() if t in data}
    if kind == "llama":
        values["rope_theta"] = _rope_theta(data)
    hints = get_type_hints(TransformerConfig)
    for ours, value in values.items():
        if not _has_type(value, hints[ours]):
            raise UsageError(f"{names.get(ours, ours)}={value!r} has the wrong type")
    width, heads = data.get("head_dim"), values["n_head"]
    if width is not None and width * heads != values["n_embd"]:
        raise UsageError(f"head_dim={width!r} is not supported, only hidden_size / {heads} heads")
    return TransformerConfig(**values, **SWITCHES.get(kind, {}))


def _has_type(value: Any, hint: Any) -> bool:
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e308  # neither NaN nor infinity
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _rope_theta(data: Mapping[str, Any]) -> Any:
    """transformers 5 keeps it in rope_parameters; before, it stood beside rope_scaling."""
    theta = data.get("rope_theta", 10000.0)
    for key in ("rope_scaling", "rope_parameters"):
        rope = data.get(key) or {"rope_theta": theta}
        plain = isinstance(rope, dict) and rope.get("partial_rotary_factor", 1) == 1
        if not plain or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise UsageError(
                f"{key}={rope!r} is not supported, only rope_type='default' for whole heads"
            )
        theta = rope.get("rope_theta", theta)
    return theta
