"""Suite: any model and adapter means the same here, in transformers and in PEFT, both ways.

    python tests/suites/random_models.py --trials 520 --seed 0

Every second trial begins in transformers: a GPT-2, Llama, Qwen2 or Mistral of random sizes and
switches, all its numbers random, with an adapter of PEFT's of random options. Its files are loaded
here, saved again, and loaded there again. The others begin here: with such a model of ours, or with
a mix of switches that only we have, and an adapter of ours.

Two sets of logits agree if no entry differs by more than TOLERANCE of the largest: that is 170
roundings of float32, in which transformers computes norms and angles whatever the model's type.
Merged models are compared, too; what was read is saved again tensor for tensor, and what we wrote
and read, byte for byte.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import suite
from builders import shake

import minilora as ml
from minilora.hub import load_adapter, load_model, save_adapter, save_model
from minilora.hub.hf_layout import family
from minilora.rope_scaling import RopeScaling

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import peft
    import torch
    import transformers
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]
else:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()

TOLERANCE = 2e-5
NOISE = 0.3
AGREE = "agree"
OURS_ALONE = "agree, of a kind that only we have"
WITHOUT = "not compared: torch, transformers or peft is missing"
Options = dict[str, Any]


class Differs(Exception):  # noqa: N818
    """Two that should be the same are not: args[0] says which."""


def trial(seed: int, i: int) -> tuple[str, str]:
    rng = np.random.default_rng((seed, i))
    begin = _begins_there if i % 2 and torch else _begins_here
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return begin(rng, Path(folder), told), ""
        except Differs as differs:
            return str(differs), "\n".join(told)
        except Exception as error:
            return f"raised {type(error).__name__}", "\n".join([*told, str(error)])


def _begins_there(rng: np.random.Generator, folder: Path, told: list[str]) -> str:
    base, names = _their_model(rng, told)
    ids = _ids(rng, base.config.vocab_size, base.config.max_position_embeddings)
    base.save_pretrained(folder / "base")
    ours = load_model(folder / "base")
    _require_close("their model", _our_logits(ours, ids), _their_logits(base, ids))
    save_model(ours, folder / "again")
    _require_same_tensors(folder / "base", folder / "again", "model.safetensors")

    options = _their_adapter_options(rng, base, names)
    told.append(f"peft.LoraConfig(**{options})")
    _adapt(copy.deepcopy(base), options, folder / "adapter")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder / "adapter").eval()
    expected = _their_logits(theirs, ids)
    load_adapter(ours, folder / "adapter")
    _require_close("their adapter", _our_logits(ours, ids), expected)
    save_adapter(ours, folder / "ours")
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder / "ours").eval()
    _require_close("their adapter, saved by us", _their_logits(again, ids), expected)
    load_adapter(second := load_model(folder / "base"), folder / "ours")
    save_adapter(second, folder / "twice")
    _require_same_tensors(folder / "ours", folder / "twice", "adapter_model.safetensors")
    merged = _their_logits(theirs.merge_and_unload(), ids)
    _merge_both(ours, again, folder, ids, merged)
    return AGREE


def _begins_here(rng: np.random.Generator, folder: Path, told: list[str]) -> str:
    ours = _our_model(rng, told)
    ids = _ids(rng, ours.config.vocab_size, ours.config.block_size)
    save_model(ours, folder / "base")
    loaded = load_model(folder / "base")
    _require_same_numbers("our model, saved and loaded", loaded, ours.state_dict())
    _require_close("our model, saved and loaded", _our_logits(loaded, ids), _our_logits(ours, ids))
    save_model(loaded, folder / "again")
    _require_same_bytes(folder / "base", folder / "again")
    alone, base = family(ours.config) == "minilora", None
    if torch and not alone:
        auto = transformers.AutoModelForCausalLM
        base, report = auto.from_pretrained(folder / "base", output_loading_info=True)
        if any(report.values()):
            raise Differs(f"transformers finds other tensors in our model: {report}")
        _require_close("our model", _our_logits(ours, ids), _their_logits(base, ids))

    options = _our_adapter_options(rng, ours)
    told.append(f"ml.LoraConfig(**{options})")
    ml.add_adapter(ours, ml.LoraConfig(**options), rng=rng)
    for p in ours.trainable_parameters():
        p.data += rng.standard_normal(p.shape).astype(p.dtype) * np.float32(NOISE)
    expected = _our_logits(ours, ids)
    save_adapter(ours, folder / "adapter")
    load_adapter(loaded, folder / "adapter")
    _require_close("our adapter, saved and loaded", _our_logits(loaded, ids), expected)
    save_adapter(loaded, folder / "second")
    load_adapter(third := load_model(folder / "base"), folder / "second")
    save_adapter(third, folder / "third")
    _require_same_tensors(folder / "second", folder / "third", "adapter_model.safetensors")
    if base is None:
        _merge(ours, ids, expected)
        return OURS_ALONE if torch else WITHOUT
    theirs = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    _require_close("our adapter", _their_logits(theirs, ids), expected)
    _merge_both(ours, theirs, folder, ids, expected)
    return AGREE


def _merge(ours: Any, ids: np.ndarray, expected: np.ndarray) -> None:
    before = {name: array.copy() for name, array in ours.state_dict().items()}
    unmerged = _our_logits(ours, ids)
    ml.merge_adapter(ours)
    _require_close("our merged model", _our_logits(ours, ids), expected)
    ml.unmerge_adapter(ours)
    _require_same_numbers("our model, merged and unmerged", ours, before)
    if not np.array_equal(_our_logits(ours, ids), unmerged):
        raise Differs("merging and unmerging left other logits")


def _merge_both(
    ours: Any, theirs: Any, folder: Path, ids: np.ndarray, expected: np.ndarray
) -> None:
    _merge(ours, ids, expected)
    ml.merge_and_unload(ours)
    save_model(ours, folder / "merged")
    auto = transformers.AutoModelForCausalLM.from_pretrained(folder / "merged")
    _require_close("our merged model in transformers", _their_logits(auto, ids), expected)
    merged = _their_logits(theirs.merge_and_unload(), ids)
    _require_close("our adapter merged by PEFT", merged, expected)


def _require_close(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    off = np.abs(found - expected).max() / np.abs(expected).max()
    if not off <= TOLERANCE:
        raise Differs(f"{what}: other logits")


def _require_same_numbers(what: str, model: Any, expected: dict[str, np.ndarray]) -> None:
    found = model.state_dict()
    if found.keys() != expected.keys() or not all(
        np.array_equal(found[name], array) for name, array in expected.items()
    ):
        raise Differs(f"{what}: other numbers")


def _require_same_tensors(one: Path, other: Path, file: str) -> None:
    from safetensors.numpy import load_file

    a, b = load_file(one / file), load_file(other / file)
    if a.keys() != b.keys() or not all(np.array_equal(a[k], b[k]) for k in a):
        raise Differs(f"saving {file} again gives other tensors")


def _require_same_bytes(one: Path, other: Path) -> None:
    for file in sorted(one.iterdir()):
        if file.read_bytes() != (other / file.name).read_bytes():
            raise Differs(f"saving {file.name} again gives other bytes")


def _ids(rng: np.random.Generator, V: int, longest: int) -> np.ndarray:
    B, T = int(rng.integers(1, 4)), int(rng.integers(1, longest + 1))
    return rng.integers(0, V, (B, T))


def _our_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    with ml.no_grad():
        return model(ids).data


def _their_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits.numpy()


def _one(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _some(rng: np.random.Generator, values: Any, least: int = 1) -> list:
    n = int(rng.integers(least, len(values) + 1))
    return [values[i] for i in sorted(rng.permutation(len(values))[:n])]


def _yes(rng: np.random.Generator, share: float) -> bool:
    return bool(rng.random() < share)


def _their_model(rng: np.random.Generator, told: list[str]) -> tuple[Any, dict[str, list[str]]]:
    """A model of transformers, and the names of its Linears and of other modules."""
    kind = _one(rng, ["gpt2", "llama", "qwen2", "mistral"])
    H, D, layers = _one(rng, [1, 2, 3, 4]), _one(rng, [2, 4, 6]), int(rng.integers(1, 4))
    T, tied = int(rng.integers(4, 13)), _yes(rng, 0.5)
    shared: Options = dict(vocab_size=int(rng.integers(5, 40)), tie_word_embeddings=tied)
    shared |= dict(bos_token_id=None, eos_token_id=None)
    head = [] if tied else ["lm_head"]
    if kind == "gpt2":
        options = shared | dict(n_positions=T, n_embd=H * D, n_layer=layers, n_head=H)
        options |= dict(n_inner=_one(rng, [None, 6, 10]), layer_norm_epsilon=_eps(rng))
        gelus = ["gelu_new", "gelu_pytorch_tanh", "gelu_accurate", "gelu_fast"]
        options |= dict(activation_function=_one(rng, gelus))
        linears = ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj", "c_proj"]
        others = ["ln_1", "ln_2", "ln_f", "wpe", *([] if tied else ["wte"])]
    else:
        options = shared | dict(hidden_size=H * D, num_hidden_layers=layers, rms_norm_eps=_eps(rng))
        options |= dict(num_attention_heads=H, num_key_value_heads=_divisor(rng, H))
        options |= dict(intermediate_size=int(rng.integers(4, 20)), max_position_embeddings=T)
        options |= dict(rope_parameters=_their_rope(rng, T))
        if kind in ("llama", "mistral") and _yes(rng, 0.4):
            options |= dict(head_dim=_one(rng, [2, 4, 8]))
        if kind == "llama":
            attention, mlp = _one(rng, [(False, False), (True, False), (True, True)])
            options |= dict(attention_bias=attention, mlp_bias=mlp)
            options |= dict(hidden_act=_one(rng, ["silu", "swish"]))
        if kind == "mistral":
            options |= dict(sliding_window=_one(rng, [None, T, T + 5]))
        linears = [f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")]
        others = ["input_layernorm", "post_attention_layernorm", "norm"]
        others += [] if tied else ["embed_tokens"]
    told.append(f"{kind} of transformers: {options}")
    name = dict(gpt2="GPT2", llama="Llama", qwen2="Qwen2", mistral="Mistral")[kind]
    head_name = "LMHeadModel" if kind == "gpt2" else "ForCausalLM"
    config = getattr(transformers, f"{name}Config")(**options)
    torch.manual_seed(int(rng.integers(2**31)))
    model = getattr(transformers, f"{name}{head_name}")(config)
    _randomise(model.parameters())
    return model.eval(), dict(linears=linears, head=head, others=others)


def _eps(rng: np.random.Generator) -> float:
    return _one(rng, [1e-6, 1e-5, 1e-3])


def _divisor(rng: np.random.Generator, n: int) -> int:
    return _one(rng, [d for d in range(1, n + 1) if n % d == 0])


def _their_rope(rng: np.random.Generator, T: int) -> Options:
    kind = _one(rng, ["default", "default", "linear", "llama3"])
    rope: Options = dict(rope_type=kind, rope_theta=_one(rng, [10000.0, 30.0, 500000.0]))
    if kind != "default":
        rope |= dict(factor=_one(rng, [1.5, 4.0]))
    if kind == "llama3":
        low, high = _one(rng, [(1.0, 4.0), (0.5, 2.0)])
        rope |= dict(low_freq_factor=low, high_freq_factor=high)
        rope |= dict(original_max_position_embeddings=T + int(rng.integers(30)))
    return rope


def _randomise(parameters: Any) -> None:
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * NOISE)


def _their_adapter_options(
    rng: np.random.Generator, base: Any, names: dict[str, list[str]]
) -> Options:
    linears, layers = names["linears"], base.config.num_hidden_layers
    targets: Any = _some(rng, linears)
    if _yes(rng, 0.2):
        targets = "all-linear"
    elif _yes(rng, 0.2):
        targets = rf".*\.({'|'.join(_some(rng, linears))})".replace("attn.c", r"attn\.c")
    elif names["head"] and _yes(rng, 0.2):
        targets += names["head"]
    options: Options = dict(target_modules=targets, task_type="CAUSAL_LM", **_numbers(rng, 9))
    options |= dict(init_lora_weights=_one(rng, [True, True, "gaussian", False]))
    options |= dict(use_dora=_yes(rng, 0.25), bias=_one(rng, ["none", "none", "all", "lora_only"]))
    if _yes(rng, 0.3):
        names_there = sorted(_some(rng, linears))  # as PEFT's file has them: the first match counts
        options["rank_pattern"] = {name: int(rng.integers(1, 7)) for name in names_there}
    if _yes(rng, 0.3):
        patterns = [*linears, rf"layers\.{layers - 1}\..*", r"h\.0\..*"]
        options["alpha_pattern"] = {name: _alpha(rng) for name in _some(rng, patterns)}
    if targets != "all-linear" and not isinstance(targets, str) and _yes(rng, 0.2):
        options["layers_to_transform"] = _some(rng, list(range(layers)))
    if _yes(rng, 0.3):
        whole = _some(rng, [*names["others"], *names["head"]])
        options["modules_to_save"] = [m for m in whole if m not in targets]
    return options


def _numbers(rng: np.random.Generator, most: int) -> Options:
    return dict(
        r=int(rng.integers(1, most + 1)),
        lora_alpha=_alpha(rng),
        use_rslora=_yes(rng, 0.3),
        lora_dropout=_one(rng, [0.0, 0.0, 0.3]),
    )


def _alpha(rng: np.random.Generator) -> float:
    return _one(rng, [1, 3, 8, 0.7, 2.5])


def _adapt(base: Any, options: Options, folder: Path) -> None:
    """Save an adapter of PEFT's in which all that trains is random. Read again, its patterns are
    in another order, so that another of two that match a path counts."""
    model = peft.get_peft_model(base, peft.LoraConfig(**options))
    _randomise(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(folder)


def _our_model(rng: np.random.Generator, told: list[str]) -> Any:
    H, D = _one(rng, [1, 2, 3, 4]), _one(rng, [2, 4, 6])
    options: Options = dict(
        vocab_size=int(rng.integers(5, 40)),
        block_size=int(rng.integers(4, 13)),
        n_layer=int(rng.integers(1, 4)),
        n_head=H,
        n_embd=H * D,
        mlp_hidden=_one(rng, [None, 6, 10]),
        norm_eps=_eps(rng),
        tie_embeddings=_yes(rng, 0.5),
        dropout=_one(rng, [0.0, 0.2]),
    )
    kind = _one(rng, ["gpt2", "llama", "llama", "mix"])
    if kind == "llama":
        options |= dict(norm="rmsnorm", activation="swiglu", positions="rope")
        options |= dict(bias=_one(rng, [False, True, "attention", "qkv"]))
    elif kind == "mix":
        options |= dict(norm=_one(rng, ["layernorm", "rmsnorm"]))
        options |= dict(activation=_one(rng, ["gelu", "swiglu"]))
        options |= dict(positions=_one(rng, ["learned", "rope"]))
        options |= dict(bias=_one(rng, [False, True, "attention", "qkv"]))
    if kind != "gpt2":
        options |= dict(n_kv_head=_divisor(rng, H), head_dim=_one(rng, [None, 2, 8]))
        options |= dict(rope_theta=_one(rng, [10000.0, 30.0]))
        scalings = [None, RopeScaling("linear", 2.5), RopeScaling("llama3", 4.0, 1.0, 4.0, 20)]
        options |= dict(rope_scaling=_one(rng, scalings))
    told.append(f"ml.TransformerConfig(**{options})")
    model = ml.Transformer(ml.TransformerConfig(**options), rng=rng)
    return shake(model, int(rng.integers(2**31)), NOISE)


def _our_adapter_options(rng: np.random.Generator, model: Any) -> Options:
    c = model.config
    linears = [f"{x}_proj" for x in ("q", "k", "v", "o", "up", "down")]
    linears += ["gate_proj"] if c.activation == "swiglu" else []
    targets: Any = _some(rng, linears)
    if _yes(rng, 0.2):
        targets = "all-linear"
    elif _yes(rng, 0.2):
        targets = rf"layers\.\d\.(attn|mlp)\.({'|'.join(_some(rng, linears))})"
    elif not c.tie_embeddings and _yes(rng, 0.2):
        targets += ["head"]
    widths = [c.n_embd, c.hidden, c.vocab_size, c.kv_heads * c.head_size, c.n_head * c.head_size]
    most = min([6, *widths])
    options: Options = dict(target_modules=targets, **_numbers(rng, most))
    inits = [True, True, "gaussian", False, "pissa", "olora"]
    options |= dict(init_lora_weights=_one(rng, inits), use_dora=_yes(rng, 0.25))
    options |= dict(bias=_one(rng, ["none", "none", "all", "lora_only"]))
    adapted = linears if isinstance(targets, str) else [t for t in targets if t != "head"]
    adapted = adapted if targets == "all-linear" or not isinstance(targets, str) else []
    if adapted and _yes(rng, 0.3):
        ranks = {name: int(rng.integers(1, most + 1)) for name in _some(rng, adapted)}
        options["rank_pattern"] = ranks
    if adapted and _yes(rng, 0.3):
        alphas = {name: _alpha(rng) for name in _some(rng, [*adapted, r"layers\.0\..*"])}
        options["alpha_pattern"] = alphas
    if _yes(rng, 0.2):
        numbers = list(range(c.n_layer))
        options["layers_to_transform"] = _some(rng, numbers)
        options.pop("alpha_pattern", None)
    if _yes(rng, 0.3):
        whole = ["norm", "attn_norm", "mlp_norm"]
        whole += ["pos_embed"] if c.positions == "learned" else []
        whole += [] if c.tie_embeddings or "head" in targets else ["head", "tok_embed"]
        options["modules_to_save"] = _some(rng, whole)
    return options


SUITE = suite.Suite(
    name="random-models",
    promise="A model and its adapter are the same here, in transformers and in PEFT.",
    trial=trial,
    kept={AGREE, OURS_ALONE, WITHOUT},
    trials=520,
)

if __name__ == "__main__":
    if torch is None:
        sys.exit(f"{WITHOUT}; the other side is theirs")
    sys.exit(suite.main(SUITE))
