"""config.json: what a model of Hugging Face says of itself, and what it is as a Transformer.

GPT-2, Llama, and what is a Llama by another name: Qwen2 (biases on q, k and v), Mistral. A table
translates the names of the sizes. Whatever else changes what is computed must have the one value
that our model computes: a model that would come out different is refused by name.
Sources: configuration_gpt2.py, _llama.py, _qwen2.py and _mistral.py in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, get_args, get_type_hints

from minilora.hub.hf_layout import SWITCHES, family
from minilora.hub.safetensors_files import first_two
from minilora.rope_scaling import RopeScaling
from minilora.system.errors import UsageError, brief
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
    head_dim         -                     head_dim
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
        "is_causal": (None, True),
    },
    "llama": {
        "hidden_act": ("silu", "swish"),
        "partial_rotary_factor": (None, 1),
        "quantization_config": (None,),
        "is_causal": (None, True),
    },
    "minilora": {},
}
_FIXED["mistral"] = _FIXED["llama"]
_FIXED["qwen2"] = _FIXED["llama"] | {"use_sliding_window": (False, None)}
# What a config.json means that leaves these out, where it is not what we would mean.
_LLAMA = {"norm_eps": 1e-6, "tie_embeddings": False}
_DEFAULTS = {"gpt2": {"dropout": 0.1}, "llama": _LLAMA, "minilora": {}}
_DEFAULTS |= {"qwen2": _LLAMA | {"n_kv_head": 32}, "mistral": _LLAMA | {"n_kv_head": 8}}
_ORIGINAL = "original_max_position_embeddings"
_REQUIRED = ["vocab_size", "block_size", "n_layer", "n_head", "n_embd"]


def _config_names(kind: str) -> dict[str, str]:
    """Our name -> the family's name."""
    if kind == "minilora":
        return {f.name: f.name for f in fields(TransformerConfig)}
    header, *rows = [line.split() for line in _TABLE.split("\n") if line.strip()]
    column = header.index("gpt2" if kind == "gpt2" else "llama")
    return {row[0]: row[column] for row in rows if row[column] != "-"}


def written_config(c: TransformerConfig, dtype: str) -> dict[str, Any]:
    """The content of config.json."""
    kind = family(c)
    values = asdict(c)
    if kind in ("llama", "qwen2"):
        values |= {"mlp_hidden": c.hidden, "head_dim": c.head_size}
    data = {theirs: values[ours] for ours, theirs in _config_names(kind).items()}
    data |= {"model_type": kind, "dtype": dtype}
    data |= {key: allowed[0] for key, allowed in _FIXED[kind].items() if allowed[0] is not None}
    if kind != "minilora":
        data |= {"bos_token_id": None, "eos_token_id": None}  # not transformers' 50256, 1 and 2
    if kind == "gpt2":
        data |= {"architectures": ["GPT2LMHeadModel"], "n_ctx": c.block_size}
        data |= {"embd_pdrop": c.dropout, "attn_pdrop": 0.0}
    if kind in ("llama", "qwen2"):
        name = "LlamaForCausalLM" if kind == "llama" else "Qwen2ForCausalLM"
        data |= {"architectures": [name], "attention_dropout": 0.0}
        data |= _written_rope(c)
    if kind == "llama":
        data |= {"attention_bias": c.has_bias("q_proj"), "mlp_bias": c.has_bias("up_proj")}
    return data


def _written_rope(c: TransformerConfig) -> dict[str, Any]:
    """As transformers 5 has it, in rope_parameters, and as it was before."""
    s, rope = c.rope_scaling, dict[str, Any](rope_type="default")
    if s is not None:
        rope = {"rope_type": s.kind, "factor": s.factor}
    if s is not None and s.kind == "llama3":
        rope |= {"low_freq_factor": s.low_freq_factor, "high_freq_factor": s.high_freq_factor}
        rope |= {_ORIGINAL: s.original_block_size}
    written = {"rope_theta": c.rope_theta} | ({"rope_scaling": rope} if s is not None else {})
    return written | {"rope_parameters": rope | {"rope_theta": c.rope_theta}}


def read_config(data: Mapping[str, Any]) -> TransformerConfig:
    """The configuration that a config.json describes. Dropout of attention's weights, such as
    GPT-2's attn_pdrop, is passed over: there is none here.

    Raises ValueError naming what our model cannot do, what is missing, and what has a wrong type.
    """
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in _FIXED:
        raise UsageError(
            f"model_type={brief(kind)} cannot be loaded; supported: {', '.join(_FIXED)}"
        )
    for key, allowed in _FIXED[kind].items():
        if key in data and not any(_same(data[key], value) for value in allowed):
            only = next((value for value in allowed if value is not None), None)
            raise UsageError(f"{key}={brief(data[key])} is not supported, only {only!r}")
    data, names = _with_gpt2_names(data) if kind == "gpt2" else data, _config_names(kind)
    if missing := [names[ours] for ours in _REQUIRED if names[ours] not in data]:
        raise UsageError(f"it lacks {', '.join(missing)}")
    strange = sorted(data.keys() - {*names, "model_type", "dtype"})
    if kind == "minilora" and strange:  # another version's: it may change what is computed
        raise UsageError(f"it has fields that are not known: {first_two(strange)}")
    values = _DEFAULTS[kind] | {o: data[t] for o, t in names.items() if t in data}
    if kind == "minilora":
        values["rope_scaling"] = _own_scaling(values.get("rope_scaling"))
    elif kind != "gpt2":
        values["rope_theta"], values["rope_scaling"] = _rope(data)
        values["bias"] = _bias(kind, data)
        _refuse_windows(kind, data, values["block_size"])
    hints = get_type_hints(TransformerConfig)
    for ours, value in values.items():
        if not _has_type(value, hints[ours]):
            raise UsageError(f"{names.get(ours, ours)}={brief(value)} has the wrong type")
    if kind == "gpt2" and (rate := data.get("embd_pdrop", 0.1)) != values["dropout"]:
        raise UsageError(
            f"embd_pdrop={brief(rate)} beside resid_pdrop={values['dropout']} is not supported, "
            "only one rate for both; set both to it, which matters in training alone"
        )
    head, heads = values.get("head_dim"), values["n_head"]
    if kind != "minilora" and head and head * heads == values["n_embd"]:
        values["head_dim"] = None
    return TransformerConfig(**SWITCHES.get("llama" if kind == "mistral" else kind, {}) | values)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal, where Python takes 1 for true."""
    return a == b and (type(a) is bool) == (type(b) is bool)


def _has_type(value: Any, hint: Any) -> bool:
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e308  # neither NaN nor infinity
    return isinstance(value, hint) and (bool in (hint, *get_args(hint)) or type(value) is not bool)


def _with_gpt2_names(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """transformers takes a size of GPT-2 also under the name that Llama has for it."""
    ours, llamas = _config_names("gpt2"), _config_names("llama")
    for size in _REQUIRED:
        name, other = ours[size], llamas[size]
        if other in data:
            data = {name: data[other], **data}
            if data[name] != data[other]:
                raise UsageError(
                    f"{name}={brief(data[name])} and {other}={brief(data[other])} are two names of "
                    "one size; delete the wrong one"
                )
    return data


def _bias(kind: str, data: Mapping[str, Any]) -> bool | str:
    """Which Linears have a bias. Only Llama reads it in its config."""
    if kind != "llama":
        return "qkv" if kind == "qwen2" else False
    attention, mlp = data.get("attention_bias") or False, data.get("mlp_bias") or False
    if (attention, mlp) not in ((False, False), (True, False), (True, True)):
        raise UsageError(
            f"attention_bias={brief(attention)} with mlp_bias={brief(mlp)} is not supported, only "
            "both, neither, or the first alone"
        )
    return mlp or ("attention" if attention else False)


def _refuse_windows(kind: str, data: Mapping[str, Any], block_size: Any) -> None:
    """Raise ValueError for attention that sees only a window of the last positions."""
    window = data.get("sliding_window", 4096) if kind == "mistral" else None
    if window is not None and not (_has_type(window, int) and window >= block_size):
        raise UsageError(
            f"sliding_window={brief(window)} is not supported where it is less than "
            f"max_position_embeddings={brief(block_size)}; set one of them to the other"
        )
    others = set(data.get("layer_types") or []) - {"full_attention"}
    if others:
        raise UsageError(f"layer_types={sorted(map(str, others))} are not supported")


def _rope(data: Mapping[str, Any]) -> tuple[Any, RopeScaling | None]:
    """theta and scaling. transformers 5 keeps them in rope_parameters; before, theta stood beside
    rope_scaling, which comes first if both are there."""
    key = "rope_scaling" if data.get("rope_scaling") else "rope_parameters"
    rope = data.get(key) or {}
    plain = isinstance(rope, dict) and rope.get("partial_rotary_factor", 1) == 1
    kind = rope.get("rope_type", rope.get("type", "default")) if plain else None
    if kind not in ("default", "linear", "llama3"):
        raise UsageError(
            f"{key}={brief(rope)} is not supported, only rope_type 'default', 'linear' and "
            "'llama3' for whole heads"
        )
    theta = rope.get("rope_theta", data.get("rope_theta", 10000.0))
    if kind == "default":
        return theta, None
    if _ORIGINAL in data:  # there it comes first too
        rope = rope | {_ORIGINAL: data[_ORIGINAL]}
    return theta, _scaling(kind, rope, _SCALING[kind])


_SCALING = {"linear": {"factor": "factor"}}
_SCALING["llama3"] = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_block_size": _ORIGINAL,
}


def _own_scaling(written: Any) -> RopeScaling | None:
    """The rope_scaling in a config.json of ours."""
    if written is None:
        return None
    names = {f.name for f in fields(RopeScaling)}
    if not isinstance(written, dict) or written.keys() != names:
        raise UsageError(f"rope_scaling={brief(written)} has the wrong type")
    return _scaling(written["kind"], written, {name: name for name in names - {"kind"}})


def _scaling(kind: Any, said: Mapping[str, Any], names: Mapping[str, str]) -> RopeScaling:
    """names: what each number is called there. Raises ValueError, naming the number, for one that
    is missing or of the wrong type."""
    if missing := [theirs for theirs in names.values() if theirs not in said]:
        raise UsageError(f"the rope scaling lacks {', '.join(missing)}")
    numbers = {ours: said[theirs] for ours, theirs in names.items()}
    hints = get_type_hints(RopeScaling)
    for ours, value in numbers.items():
        if not _has_type(value, hints[ours]):
            raise UsageError(f"{names[ours]}={brief(value)} of the rope scaling has the wrong type")
    return RopeScaling(kind, **numbers)
