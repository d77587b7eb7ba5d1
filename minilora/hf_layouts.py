"""Where each part of our Transformer lives in a Hugging Face GPT-2 or Llama.

One model, three layouts. `_TABLE` translates the names; the shapes differ in three ways:
  ours     every weight (d_in, d_out); q, k and v apart
  GPT-2    the same, but q, k and v side by side in one c_attn (d, 3d)
  Llama    every weight of a Linear transposed, (d_out, d_in)
A model with another mix of switches has no counterpart there and keeps our own names and shapes.
The second half does for LoRA's A and B and for PEFT's options what the first does for the model.
Sources: modeling_gpt2.py and modeling_llama.py in transformers; tuners_utils.py and lora/config.py
in PEFT 0.21. Imports transformer.py, lora_config.py.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_type_hints

import numpy as np

from minilora.lora_config import LoraConfig
from minilora.transformer import TransformerConfig

Arrays = dict[str, np.ndarray]

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


@dataclass(frozen=True)
class Place:
    """Where one of our modules lives in the other layout."""

    path: str
    transposed: bool = False
    third: int | None = None  # of c_attn's columns: 0 is q, 1 is k, 2 is v


Places = dict[str, Place]


def family(c: TransformerConfig) -> str:
    """ "gpt2", "llama", or "minilora" for a mix of switches that neither of them has."""
    switches = (c.norm, c.activation, c.positions, c.bias)
    if switches == ("layernorm", "gelu", "learned", True) and c.kv_heads == c.n_head:
        return "gpt2"
    return "llama" if switches == ("rmsnorm", "swiglu", "rope", False) else "minilora"


def places(c: TransformerConfig) -> Places:
    """The Place of every module that a model of this configuration has, by our path."""
    header, *rows = [line.split() for line in _TABLE.split("\n") if line.strip()]
    absent = {
        "pos_embed": c.positions != "learned",
        "layers.#.mlp.gate_proj": c.activation != "swiglu",
        "head": c.tie_embeddings,
    }
    found: Places = {}
    for row in rows:
        ours = row[0]
        theirs = ours if family(c) == "minilora" else row[header.index(family(c))]
        if not absent.get(ours):
            for i in map(str, range(c.n_layer if "#" in ours else 1)):
                found[ours.replace("#", i)] = _parse_place(theirs.replace("#", i))
    return found


def _parse_place(text: str) -> Place:
    path, _, third = text.removesuffix("]").partition("[")
    return Place(path.removesuffix(".T"), path.endswith(".T"), int(third) if third else None)


def to_hf(arrays: Mapping[str, np.ndarray], where: Places) -> Arrays:
    """Our parameters under their Hugging Face names and in their shapes.

    q, k and v of a layer must all be there where they are fused.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():  # in the model's own order, so q before k before v
        module, _, kind = name.rpartition(".")
        place = where[module]
        parts.setdefault(f"{place.path}.{kind}", []).append(array.T if place.transposed else array)
    return {  # 3 times (d, d) -> (d, 3d), and biases 3 times (d,) -> (3d,)
        key: some[0] if len(some) == 1 else np.concatenate(some, axis=-1)
        for key, some in parts.items()
    }


def from_hf(tensors: Mapping[str, np.ndarray], where: Places) -> Arrays:
    """The inverse of to_hf; tensors of which we have no counterpart are left out."""
    found: Arrays = {}
    for module, place in where.items():
        for kind in ("weight", "bias"):
            if (array := tensors.get(f"{place.path}.{kind}")) is not None:
                if place.third is not None:
                    array = np.split(array, 3, axis=-1)[place.third]  # (d, 3d) -> (d, d)
                found[f"{module}.{kind}"] = array.T if place.transposed else array
    return found


# The same for the fields of config.json.
_CONFIG_TABLE = """
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

# Options of which we compute only one kind: what we write, then what else means the same.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "add_cross_attention": (False, None),
        "quantization_config": (None,),
    },
    "llama": {
        "hidden_act": ("silu",),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "partial_rotary_factor": (None, 1),
        "quantization_config": (None,),
    },
    "minilora": {},
}
_SWITCHES: dict[str, dict[str, Any]] = {
    "gpt2": {},  # the defaults of TransformerConfig
    "llama": dict(norm="rmsnorm", activation="swiglu", positions="rope", bias=False),
    "minilora": {},
}
# What a config.json means that leaves these out, where it is not what we would mean.
_DEFAULTS = {"gpt2": {}, "llama": {"norm_eps": 1e-6, "tie_embeddings": False}, "minilora": {}}
_REQUIRED = "vocab_size block_size n_layer n_head n_embd".split()


def _config_names(kind: str) -> dict[str, str]:
    """Our name -> the family's name."""
    if kind == "minilora":
        return {f.name: f.name for f in fields(TransformerConfig)}
    header, *rows = [line.split() for line in _CONFIG_TABLE.split("\n") if line.strip()]
    return {row[0]: row[header.index(kind)] for row in rows if "-" not in row}


def hf_config(c: TransformerConfig, dtype: str) -> dict[str, Any]:
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


def our_config(data: Mapping[str, Any]) -> TransformerConfig:
    """The configuration that a config.json describes.

    Raises ValueError naming what our model cannot do, what is missing, and what has a wrong type.
    """
    kind = data.get("model_type")
    if kind not in _FIXED:
        raise ValueError(f"model_type={kind!r} is none that minilora can load: {', '.join(_FIXED)}")
    for key, allowed in _FIXED[kind].items():
        if key in data and data[key] not in allowed:
            raise ValueError(f"{key}={data[key]!r} is not supported, only {allowed[0]!r}")
    names = _config_names(kind)
    if missing := [names[ours] for ours in _REQUIRED if names[ours] not in data]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    strange = sorted(data.keys() - {*names, "model_type", "dtype"})
    if kind == "minilora" and strange:  # another version's: it may change what is computed
        raise ValueError(f"it has fields that are not known: {', '.join(strange)}")
    values = _DEFAULTS[kind] | {o: data[t] for o, t in names.items() if t in data}
    if kind == "llama":
        values["rope_theta"] = _rope_theta(data)
    hints = get_type_hints(TransformerConfig)
    for ours, value in values.items():
        allowed = hints[ours] | int if hints[ours] is float else hints[ours]
        if not isinstance(value, allowed) or (isinstance(value, bool) and hints[ours] is not bool):
            raise ValueError(f"{names.get(ours, ours)}={value!r} has the wrong type")
    width, heads = data.get("head_dim"), values["n_head"]
    if width is not None and width * heads != values["n_embd"]:
        raise ValueError(f"head_dim={width} is not supported, only hidden_size / {heads} heads")
    return TransformerConfig(**values, **_SWITCHES[kind])


def _rope_theta(data: Mapping[str, Any]) -> Any:
    """transformers 5 keeps it in rope_parameters; before, it stood beside rope_scaling."""
    theta = data.get("rope_theta", 10000.0)
    for key in ("rope_scaling", "rope_parameters"):
        rope = data.get(key) or {"rope_theta": theta}
        plain = isinstance(rope, dict) and rope.get("partial_rotary_factor", 1) == 1
        if not plain or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"{key}={rope!r} is not supported, only rope_type='default'")
        theta = rope.get("rope_theta", theta)
    return theta


@dataclass(frozen=True)
class Factors:
    """ΔW = scale A B of one Linear: A (d_in, r), B (r, d_out)."""

    A: np.ndarray
    B: np.ndarray
    scale: float


def adapters_to_hf(layers: Mapping[str, Factors], where: Places) -> dict[str, Factors]:
    """The factors of our layers by path, for the modules of the other layout."""
    parts: dict[str, dict[int | None, Factors]] = {}
    for path, f in layers.items():
        parts.setdefault(where[path].path, {})[where[path].third] = f
    return {path: p[None] if None in p else _fuse_qkv(p) for path, p in parts.items()}


def adapters_from_hf(
    factors: Mapping[str, Factors], where: Places, keep: Collection[str] = ()
) -> dict[str, Factors]:
    """The inverse of adapters_to_hf. `keep`: layers to be adapted even if their ΔW is zero."""
    layers = {}
    for ours, place in where.items():
        if (f := factors.get(place.path)) is not None:
            part = f if place.third is None else _third_of(f, place.third, ours in keep)
            if part is not None:
                layers[ours] = _within_full_rank(part)
    return layers


def _fuse_qkv(parts: Mapping[Any, Factors]) -> Factors:
    """One adapter of c_attn (d, 3d) out of those of q (0), k (1) and v (2), any of which may lack.

    [x Aq, x Ak, x Av] times a block-diagonal B gives each third its own ΔW: the ranks add up.
    Adapters that share their A (as those have that were split) need no blocks, and keep their rank.
    """
    scale = max((part.scale for part in parts.values()), key=abs)
    As = [part.A for part in parts.values()]
    shared = all(np.array_equal(A, As[0]) for A in As)
    A = As[0] if shared else np.concatenate(As, axis=1)  # (d, r) each -> (d, R)
    d = len(A)
    B = np.zeros((A.shape[1], 3 * d), A.dtype)
    row = 0
    for third, part in parts.items():
        r = len(part.B)
        B[row : row + r, third * d : (third + 1) * d] = part.B * (part.scale / (scale or 1))
        row += 0 if shared else r
    return Factors(A, B, scale)


def _third_of(fused: Factors, third: int, keep: bool) -> Factors | None:
    """The adapter of q (0), k (1) or v (2) in one of c_attn: the same A, and a third of B.

    Undoes _fuse_qkv: a row of B that is zero in this third and not in another adds nothing here,
    and is left out. Where no row is left the answer is None, or (keep) all of them after all.
    """
    B = np.split(fused.B, 3, axis=1)[third]  # (R, 3d) -> (R, d)
    rows = B.any(axis=1) | ~fused.B.any(axis=1)  # (R,); a row that is zero everywhere is untrained
    if not rows.any():
        return Factors(fused.A, B, fused.scale) if keep else None
    return Factors(fused.A[:, rows], B[rows], fused.scale)


def _within_full_rank(f: Factors) -> Factors:
    """The same A B with no more rank than its matrix can have. PEFT allows more, which is of no
    use, and a c_attn adapter can have it after _fuse_qkv; then A B itself is one of the factors."""
    (d_in, r), d_out = f.A.shape, f.B.shape[1]
    if r <= min(d_in, d_out):
        return f
    identity = np.eye(min(d_in, d_out), dtype=f.A.dtype)
    A, B = (identity, f.A @ f.B) if d_in <= d_out else (f.A @ f.B, identity)
    return Factors(A, B, f.scale)


def _matches_end(path: str, end: str) -> bool:
    """PEFT's rule for target_modules: "c_attn" is every module of that name, wherever it is."""
    return path == end or path.endswith(f".{end}")


def shortest_ends(
    chosen: Iterable[str],
    among: Collection[str],
    matches: Callable[[str, str], bool] = _matches_end,
) -> list[str]:
    """The fewest words that choose exactly these paths: "c_attn", else "attn.c_proj", else all."""
    wanted, ends = set(chosen), []
    for path in wanted:
        words = path.split(".")
        for end in (words[-1], ".".join(words[-2:]), path):
            if all(other in wanted for other in among if matches(other, end)):
                ends.append(end)
                break
    return sorted(set(ends))


def _rule_and_exceptions(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The most common value, and the others by the ends of their paths (rank_pattern)."""
    common = Counter(values.values()).most_common(1)[0][0]
    exceptions: dict[str, Any] = {}
    for value in dict.fromkeys(v for v in values.values() if v != common):
        paths = [path for path, v in values.items() if v == value]
        exceptions |= dict.fromkeys(shortest_ends(paths, values), value)
    return common, exceptions


def peft_options(
    config: LoraConfig, factors: Mapping[str, Factors], whole: set[str], where: Places
) -> dict[str, Any]:
    """The content of adapter_config.json, with which PEFT computes the same scale everywhere."""
    r, rank_pattern = _rule_and_exceptions({path: len(f.B) for path, f in factors.items()})
    alphas = {path: _alpha(f, config.use_rslora) for path, f in factors.items()}
    lora_alpha, alpha_pattern = _rule_and_exceptions(alphas)
    everything = {place.path for place in where.values()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": r,
        "lora_alpha": lora_alpha,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "target_modules": shortest_ends(factors, everything),
        "modules_to_save": shortest_ends(whole, everything, str.endswith) or None,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias,
        "use_rslora": config.use_rslora,
        "use_dora": False,
        "init_lora_weights": config.init_lora_weights,
    }


def _alpha(f: Factors, use_rslora: bool) -> float:
    """The alpha that gives this scale at this rank, as a round number if that gives it exactly."""
    divisor = math.sqrt(len(f.B)) if use_rslora else len(f.B)
    alpha = f.scale * divisor
    if not math.isfinite(alpha):
        raise ValueError(f"an adapter's scale is {f.scale}; change lora_alpha to a finite number")
    return next((a for a in (round(alpha), round(alpha, 6)) if a / divisor == f.scale), alpha)


def our_options(peft: LoraConfig, layers: Mapping[str, Factors], whole: tuple) -> LoraConfig:
    """The LoraConfig with which we train on, every layer named in full."""
    r, rank_pattern = _rule_and_exceptions({path: len(f.B) for path, f in layers.items()})
    alphas = {path: _alpha(f, peft.use_rslora) for path, f in layers.items()}
    lora_alpha, alpha_pattern = _rule_and_exceptions(alphas)
    return replace(
        peft,
        r=r,
        lora_alpha=lora_alpha,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        target_modules=tuple(layers),
        modules_to_save=whole,
    )


# Keys of adapter_config.json: read here; of no matter once an adapter is trained; and those under
# which PEFT computes something else than x W + s x A B.
_READ = (
    "peft_type r lora_alpha rank_pattern alpha_pattern lora_dropout bias use_rslora "
    "init_lora_weights modules_to_save"
).split()
_HARMLESS = (
    "task_type base_model_name_or_path inference_mode revision auto_mapping peft_version "
    "target_modules exclude_modules layers_to_transform layers_pattern fan_in_fan_out "
    "megatron_config megatron_core loftq_config eva_config corda_config lora_ga_config "
    "velora_config qalora_group_size runtime_config ensure_weight_tying"
).split()
_REFUSED = (
    "use_dora use_qalora lora_bias layer_replication trainable_token_indices target_parameters "
    "alora_invocation_tokens monteclora_config use_bdlora arrow_config kasa_config"
).split()
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # init_lora_weights that alter W


def read_options(written: Mapping[str, Any]) -> LoraConfig:
    """What adapter_config.json says, with PEFT's defaults; paths in it are still PEFT's.

    Raises ValueError for what would make PEFT compute something else, warns of unknown keys.
    """
    if written.get("peft_type") != "LORA":
        raise ValueError(f"peft_type={written.get('peft_type')!r} is not supported, only 'LORA'")
    for key in _REFUSED:
        if written.get(key):
            raise ValueError(f"{key}={written[key]!r} is not supported: plain LoRA is, without it")
    init = written.get("init_lora_weights", True)
    if str(init).startswith(_CHANGES_BASE):
        raise ValueError(
            f"init_lora_weights={init!r} has changed the base model's weights; convert the adapter "
            "with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    known = {*_READ, *_HARMLESS, *_REFUSED}
    if unknown := sorted(written.keys() - known):
        warnings.warn(f"adapter_config.json: ignored {', '.join(unknown)}", stacklevel=3)
    try:
        options = LoraConfig(
            r=written.get("r", 8),
            lora_alpha=written.get("lora_alpha", 8),
            rank_pattern=written.get("rank_pattern") or {},
            alpha_pattern=written.get("alpha_pattern") or {},
            lora_dropout=written.get("lora_dropout", 0.0),
            bias=written.get("bias", "none"),
            use_rslora=written.get("use_rslora", False),
            init_lora_weights=init if init in (False, "gaussian") else True,
            modules_to_save=tuple(written.get("modules_to_save") or ()),
        )
        finite = map(math.isfinite, [options.lora_alpha, *options.alpha_pattern.values()])
        if not all(finite):
            raise ValueError("lora_alpha and alpha_pattern must be finite")
    except (TypeError, AttributeError) as error:
        raise ValueError(f"an option in adapter_config.json has a wrong type: {error}") from None
    return options
