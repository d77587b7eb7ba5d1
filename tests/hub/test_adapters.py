"""Claims about adapters as files: what is saved is loaded bit for bit, PEFT would select the same
modules and compute the same ΔW, and what PEFT writes is read as PEFT means it."""

import copy
import math
import re
import warnings

import numpy as np
import pytest
from folders import (
    IDS,
    KINDS,
    PREFIX,
    C,
    adapt,
    contents,
    loaded_with,
    logits,
    make,
    own_numbers,
    read,
    rewrite,
    same,
    same_logits,
    snapshot,
)

import minilora as ml
from minilora.hub import adapter_base, load_adapter, load_model, save_adapter, save_model
from minilora.hub.hf_layout import layout_of
from minilora.hub.models import base_arrays
from minilora.lora import active_adapter, adapters, lora_layers
from minilora.system.errors import UsageError

CONFIG_KEYS = {
    "peft_type", "r", "lora_alpha", "target_modules", "task_type", "fan_in_fan_out", "bias",
    "use_rslora", "use_dora", "lora_dropout", "init_lora_weights", "inference_mode",
    "modules_to_save", "rank_pattern", "alpha_pattern", "base_model_name_or_path",
}  # fmt: skip
ALL = dict(target_modules="all-linear")
OPTIONS = {
    "q and v": {},
    "k": dict(target_modules=["k_proj"]),
    "all linear": ALL,
    "one layer": dict(**ALL, layers_to_transform=1),
    "rslora": dict(**ALL, use_rslora=True),
    "patterns": dict(
        **ALL,
        rank_pattern={"v_proj": 1, "layers.1.attn.o_proj": 3},
        alpha_pattern={"up_proj": 7, "layers.0.mlp.*": 0.3},
    ),
    "rslora and patterns": dict(
        **ALL, use_rslora=True, rank_pattern={"v_proj": 1}, alpha_pattern={"up_proj": 7}
    ),
    "dora": dict(use_dora=True),
    "lora_only": dict(bias="lora_only", target_modules=["q_proj", "down_proj"]),
    "all biases": dict(bias="all"),
    "norms": dict(modules_to_save=["norm", "mlp_norm"]),
    "norm and biases": dict(modules_to_save=["norm"], bias="all"),
    "one norm": dict(modules_to_save=["layers.1.attn_norm"], lora_dropout=0.5),
}


def factors(model, path, name="default"):
    one = lora_layers(model)[path].adapters[name]
    return one.A.data, one.B.data


def scales(model):
    return {path: layer.adapters["default"].s for path, layer in lora_layers(model).items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS)
def test_saved_adapter_is_loaded_bit_for_bit(kind, options, tmp_path):
    model = adapt(make(kind), **OPTIONS[options])
    save_adapter(model, tmp_path)
    again = loaded_with(kind, tmp_path)
    unequal_scales = "patterns" in options and kind.startswith("gpt2")  # folded into B
    if unequal_scales or (options == "dora" and kind.startswith("gpt2")):  # ‖W‖ of k stands in m
        assert np.abs(logits(again) - logits(model)).max() < 1e-5
    else:
        assert same(own_numbers(again), own_numbers(model)) and same_logits(again, model)
    assert [n for n, p in again.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]
    written, _ = read(tmp_path, "adapter")
    assert written.keys() == CONFIG_KEYS
    mine, its = adapters(model)["default"].config, adapters(again)["default"].config
    for key in ("bias", "use_rslora", "use_dora", "lora_dropout", "init_lora_weights"):
        assert getattr(mine, key) == getattr(its, key) == written[key]


def scale_by_pefts_rules(config, path):
    """As in peft/utils/other.py and tuners/lora/layer.py."""

    def pick(pattern, default):
        hits = [v for k, v in pattern.items() if re.match(rf"(.*\.)?({k})$", path)]
        return hits[0] if hits else default

    r = pick(config["rank_pattern"], config["r"])
    alpha = pick(config["alpha_pattern"], config["lora_alpha"])
    return r, alpha / (math.sqrt(r) if config["use_rslora"] else r)


def selected_by_pefts_rules(config, paths):
    """As check_target_module_exists in peft/tuners/tuners_utils.py."""
    ends = config["target_modules"]
    return {p for p in paths if p in ends or any(p.endswith(f".{end}") for end in ends)}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixed"])
@pytest.mark.parametrize("options", [name for name in OPTIONS if name != "dora"])
def test_peft_would_select_the_same_modules_and_compute_the_same_update(kind, options, tmp_path):
    model = adapt(make(kind), **OPTIONS[options])
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert all(key.startswith(PREFIX) for key in tensors)
    adapted = {k.removeprefix(PREFIX).partition(".lora_A")[0] for k in tensors if "lora_A" in k}
    layout = layout_of(model.config)
    paths = {theirs.path for theirs in layout.values()}
    assert selected_by_pefts_rules(config, paths) == adapted
    assert config["fan_in_fan_out"] is (kind != "llama")
    for path in adapted:
        A, B = (tensors[f"{PREFIX}{path}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        r, scale = scale_by_pefts_rules(config, path)
        assert A.shape[0] == B.shape[1] == r
        ours = [own for own, theirs in layout.items() if theirs.path == path]
        updates = np.split(scale * (B @ A).T, len(ours), axis=1)  # ΔW = s B A, transposed
        for own, update in zip(ours, updates, strict=True):
            layer = lora_layers(model).get(own)
            expected = layer.delta_weight("default") if layer else np.zeros_like(update)
            assert np.abs(update - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("gpt2", {}, ["c_attn"]),
        ("gpt2", dict(target_modules=["o_proj"]), ["attn.c_proj"]),
        ("gpt2", dict(target_modules=["o_proj", "down_proj"]), ["c_proj"]),
        ("gpt2", ALL, ["c_attn", "c_fc", "c_proj"]),
        ("gpt2", dict(layers_to_transform=0), ["transformer.h.0.attn.c_attn"]),
        ("gpt2-untied", dict(target_modules=["head"]), ["lm_head"]),
        ("llama-tied", {}, ["q_proj", "v_proj"]),
        (
            "llama-tied",
            dict(target_modules=["up_proj"], layers_to_transform=[1]),
            ["model.layers.1.mlp.up_proj"],
        ),
        ("mixed", {}, ["q_proj", "v_proj"]),
    ],
)
def test_target_modules_are_the_shortest_ends_that_fit(kind, options, expected, tmp_path):
    save_adapter(adapt(make(kind), **options), tmp_path)
    assert read(tmp_path, "adapter")[0]["target_modules"] == expected


def test_gpt2_adapters_of_q_and_v_stand_side_by_side_in_c_attn(tmp_path):
    model = adapt(make(n_layer=1), rank_pattern={"v_proj": 3}, alpha_pattern={"v_proj": 4.5})
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert (config["r"], config["lora_alpha"]) == (5, 7.5)  # both have s = 1.5
    (A_q, B_q), (A_v, B_v) = (factors(model, f"layers.0.attn.{x}_proj") for x in "qv")
    path = f"{PREFIX}transformer.h.0.attn.c_attn.lora_"
    assert {k: a.shape for k, a in tensors.items()} == {
        f"{path}A.weight": (5, C),
        f"{path}B.weight": (3 * C, 5),
    }
    expected = np.zeros((5, 3 * C), np.float32)
    expected[:2, :C], expected[2:, 2 * C :] = B_q, B_v
    assert np.array_equal(tensors[f"{path}B.weight"].T, expected)
    assert np.array_equal(tensors[f"{path}A.weight"].T, np.concatenate([A_q, A_v], 1))


def write_c_attn_adapter(folder, r=3, layers=2, seed=0, config=(), **tensors):
    """What PEFT would write for c_attn, all of A and B random unless given."""
    rng = np.random.default_rng(seed)
    save_adapter(adapt(make(n_layer=layers)), folder)
    found = {}
    for i in range(layers):
        path = f"{PREFIX}transformer.h.{i}.attn.c_attn.lora_"
        found[f"{path}A.weight"] = rng.standard_normal((r, C)).astype(np.float32)
        found[f"{path}B.weight"] = rng.standard_normal((3 * C, r)).astype(np.float32)
    rewrite(folder, "adapter", dict(r=r, lora_alpha=r / 2) | dict(config), tensors=found | tensors)
    return read(folder, "adapter")[1]


def test_c_attn_adapter_becomes_three_with_the_same_A(tmp_path):
    tensors = write_c_attn_adapter(tmp_path)
    model = loaded_with("gpt2", tmp_path)
    assert len(lora_layers(model)) == 6 and set(scales(model).values()) == {0.5}
    for i in range(2):
        path = f"{PREFIX}transformer.h.{i}.attn.c_attn.lora_"
        thirds = np.split(tensors[f"{path}B.weight"].T, 3, axis=1)
        for x, third in zip("qkv", thirds, strict=True):
            A, B = factors(model, f"layers.{i}.attn.{x}_proj")
            assert np.array_equal(A, tensors[f"{path}A.weight"].T) and np.array_equal(B, third)


def test_c_attn_adapter_loaded_and_saved_is_the_same_file_however_often(tmp_path):
    tensors = write_c_attn_adapter(tmp_path)
    for _ in range(3):
        save_adapter(loaded_with("gpt2", tmp_path), tmp_path)
        assert same(read(tmp_path, "adapter")[1], tensors)
    assert read(tmp_path, "adapter")[0]["r"] == 3


def test_untrained_row_of_c_attn_stays_with_q_k_and_v(tmp_path):
    B = np.ones((3 * C, 3), np.float32)
    B[:, 1] = 0  # a rank that nothing has used yet
    key = f"{PREFIX}transformer.h.0.attn.c_attn.lora_B.weight"
    write_c_attn_adapter(tmp_path, **{key: B})
    model = loaded_with("gpt2", tmp_path)
    assert {factors(model, f"layers.0.attn.{x}_proj")[0].shape for x in "qkv"} == {(C, 3)}


def test_fresh_adapter_loads_as_no_change(tmp_path):
    model = make()
    ml.add_adapter(model, ml.LoraConfig(r=4), rng=np.random.default_rng(0))
    save_adapter(model, tmp_path)
    assert same_logits(loaded_with("gpt2", tmp_path), make())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_more_rank_than_a_matrix_has_is_loaded_as_all_it_has(kind, tmp_path):
    save_adapter(adapt(make(kind), target_modules=["k_proj", "up_proj", "down_proj"]), tmp_path)
    rng, wide = np.random.default_rng(0), {}
    for key, array in read(tmp_path, "adapter")[1].items():
        shape = (19, array.shape[1]) if "lora_A" in key else (array.shape[0], 19)
        wide[key] = rng.standard_normal(shape).astype(np.float32)
    rewrite(tmp_path, "adapter", dict(r=19, lora_alpha=9.5), tensors=wide)
    again = loaded_with(kind, tmp_path)
    for path, layer in lora_layers(again).items():
        theirs = layout_of(again.config)[path]
        A, B = (wide[f"{PREFIX}{theirs.path}.lora_{x}.weight"].T for x in "AB")
        B = B if theirs.third is None else np.split(B, 3, axis=1)[theirs.third]
        assert factors(again, path)[0].shape[1] == min(layer.base.weight.shape)
        assert np.abs(layer.delta_weight("default") - 0.5 * A @ B).max() < 1e-5
    save_adapter(again, tmp_path / "again")


def test_different_scales_of_q_k_and_v_are_folded_into_B(tmp_path):
    alphas = {"q_proj": 1, "k_proj": 0.01, "v_proj": 40}
    model = adapt(make(), target_modules=["q_proj", "k_proj", "v_proj"], alpha_pattern=alphas)
    save_adapter(model, tmp_path)
    again = loaded_with("gpt2", tmp_path)
    for path, layer in lora_layers(model).items():
        expected = layer.delta_weight("default")
        assert np.allclose(ml.get_delta_weight(again, path), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_patterns_in_the_file_are_read_as_peft_reads_them(use_rslora, tmp_path):
    save_adapter(adapt(make("llama"), target_modules=["q_proj", "up_proj"]), tmp_path)
    alphas = {"^model.layers.0.self_attn.q_proj": 5, "q_proj": 7, r"layers\.\d\.mlp\..*": 9}
    ranks = {"roj": 1, "odel.layers": 1}  # not the end of a path, so without effect
    patterns = dict(alpha_pattern=alphas, rank_pattern=ranks, use_rslora=use_rslora, lora_alpha=11)
    rewrite(tmp_path, "adapter", patterns)
    divisor = math.sqrt(2) if use_rslora else 2
    assert scales(loaded_with("llama", tmp_path)) == {
        "layers.0.attn.q_proj": 5 / divisor,
        "layers.1.attn.q_proj": 7 / divisor,
        "layers.0.mlp.up_proj": 9 / divisor,
        "layers.1.mlp.up_proj": 9 / divisor,
    }


NAMED = [
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[1]),
    dict(target_modules=["attn.v_proj", "layers.1.attn.q_proj"], layers_to_transform=1),
    dict(target_modules=["layers.1.attn.q_proj", "layers.1.attn.v_proj"], layers_to_transform=[0]),
    dict(target_modules=r".*\.1\..*\.[qv]_proj"),
    dict(target_modules=["q_proj", "v_proj"], exclude_modules=r"layers\.0.*"),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[1], layers_pattern="layers"),
    dict(target_modules=None),
]
NOT_NAMED = [
    dict(target_modules=["q_proj"]),
    dict(target_modules=[]),
    dict(target_modules=r".*\.nothing"),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[1], layers_pattern=["h"]),
    dict(target_modules=["q_proj", "v_proj"], exclude_modules=["v_proj"]),
    dict(target_modules="q_proj"),
]


@pytest.mark.parametrize("options", NAMED)
@pytest.mark.filterwarnings("error")
def test_layers_to_adapt_are_those_of_the_file_if_its_options_name_them(options, tmp_path):
    save_adapter(adapt(make("mixed"), layers_to_transform=1), tmp_path)
    rewrite(tmp_path, "adapter", options)
    found = loaded_with("mixed", tmp_path)
    assert list(lora_layers(found)) == ["layers.1.attn.q_proj", "layers.1.attn.v_proj"]
    save_adapter(found, tmp_path / "again")  # as its own options now name them
    loaded_with("mixed", tmp_path / "again")


@pytest.mark.parametrize("options", NOT_NAMED)
def test_tensors_that_the_options_do_not_name_are_refused(options, tmp_path):
    save_adapter(adapt(make("mixed"), layers_to_transform=1), tmp_path)
    rewrite(tmp_path, "adapter", options)
    model = make("mixed")
    before = snapshot(model)
    with pytest.raises(
        UsageError, match=r"holds tensors for layers.1.attn..* do not name \(target_"
    ):
        load_adapter(model, tmp_path)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("kind", "targets"), [("gpt2", ["c_fc"]), ("llama", ["up_proj"]), ("qwen2", ["k_proj"])]
)
def test_without_target_modules_it_is_pefts_default_that_names_them(kind, targets, tmp_path):
    ours = ["up_proj"] if kind == "gpt2" else targets
    save_adapter(adapt(make(kind)), tmp_path / "default")
    save_adapter(adapt(make(kind), target_modules=ours), tmp_path / "other")
    for folder in ("default", "other"):
        rewrite(tmp_path / folder, "adapter", dict(target_modules=None))
    loaded_with(kind, tmp_path / "default")
    with pytest.raises(UsageError, match=rf"holds tensors for .*{targets[0]}.* do not name"):
        loaded_with(kind, tmp_path / "other")


@pytest.mark.parametrize(
    ("targets", "missing"),
    [
        (["q_proj", "v_proj", "k_proj"], "layers.0.attn.k_proj, layers.0.attn.q_proj and 2 more"),
        (r"layers\.1\..*(q|k|v)_proj", "layers.1.attn.k_proj"),
        ("all-linear", "layers.0.attn.k_proj, layers.0.attn.o_proj and 10 more"),
    ],
)
def test_modules_that_are_named_and_have_no_tensors_are_warned_of(targets, missing, tmp_path):
    save_adapter(adapt(make("mixed"), layers_to_transform=1), tmp_path)
    rewrite(tmp_path, "adapter", dict(target_modules=targets))
    with pytest.warns(UserWarning, match=f"no tensors for {missing}, which its target_modules na"):
        found = loaded_with("mixed", tmp_path)
    assert list(lora_layers(found)) == ["layers.1.attn.q_proj", "layers.1.attn.v_proj"]


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "Gaussian", "MiCA", "eva"])
def test_an_init_that_leaves_the_base_alone_makes_no_difference_once_trained(init, tmp_path):
    model = adapt(make("mixed"))
    save_adapter(model, tmp_path)
    rewrite(tmp_path, "adapter", dict(init_lora_weights=init))
    assert same_logits(loaded_with("mixed", tmp_path), model)


def test_what_the_config_leaves_out_has_pefts_defaults(tmp_path):
    save_adapter(adapt(make("mixed"), r=8, target_modules=["q_proj"]), tmp_path)
    rewrite(tmp_path, "adapter", drop=CONFIG_KEYS - {"peft_type"})
    config = adapters(loaded_with("mixed", tmp_path))["default"].config
    assert (config.r, config.lora_alpha, config.bias, config.lora_dropout) == (8, 8, "none", 0.0)
    assert (config.init_lora_weights, config.use_rslora) == (True, False)


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_have_the_keys_of_peft(bias, tmp_path):
    model = adapt(make(n_layer=1), bias=bias, target_modules=["q_proj", "down_proj"])
    save_adapter(model, tmp_path)
    _, tensors = read(tmp_path, "adapter")
    paths = {"h.0.attn.c_attn.base_layer", "h.0.mlp.c_proj.base_layer"}
    if bias == "all":
        paths |= {"h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.ln_1", "h.0.ln_2", "ln_f"}
    expected = {f"{PREFIX}transformer.{path}.bias" for path in paths}
    assert {key for key in tensors if "lora_" not in key} == expected
    fused = tensors[f"{PREFIX}transformer.h.0.attn.c_attn.base_layer.bias"]
    attn = model.layers[0].attn
    assert np.array_equal(fused[:C], attn.q_proj.base.bias.data)
    assert np.array_equal(fused[C : 2 * C], attn.k_proj.bias.data)


def test_bias_of_an_adapted_layer_loads_under_its_old_key_too(tmp_path):
    model = adapt(make("gpt2"), bias="lora_only", target_modules=["down_proj"])
    save_adapter(model, tmp_path)
    rewrite(tmp_path, "adapter", rename=(r"\.base_layer", ""))
    assert same_logits(loaded_with("gpt2", tmp_path), model)


def test_trained_bias_of_a_layer_without_update_is_kept(tmp_path):
    base = make(n_layer=1)
    attn = base.layers[0].attn
    biases = [p.bias.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)]
    biases[1] = biases[1] + 1
    path = f"{PREFIX}transformer.h.0.attn.c_attn."
    B = np.zeros((3 * C, 3), np.float32)
    B[:C] = 1  # an update of q alone
    tensors = {f"{path}lora_B.weight": B, f"{path}base_layer.bias": np.concatenate(biases)}
    write_c_attn_adapter(tmp_path, layers=1, config=dict(bias="lora_only"), **tensors)
    load_adapter(base, tmp_path)
    assert list(lora_layers(base)) == ["layers.0.attn.q_proj", "layers.0.attn.k_proj"]
    assert np.array_equal(attn.k_proj.base.bias.data, biases[1])
    assert not ml.get_delta_weight(base, "layers.0.attn.k_proj").any()


def test_what_peft_repeats_with_biases_and_saved_modules_is_ignored(tmp_path):
    model = adapt(make(), bias="all", modules_to_save=["norm"])
    save_adapter(model, tmp_path)
    norm = f"{PREFIX}transformer.ln_f"
    bias = read(tmp_path, "adapter")[1][f"{norm}.bias"]
    repeated = {f"{norm}.modules_to_save.bias": bias, f"{norm}.original_module.bias": bias * 0}
    rewrite(tmp_path, "adapter", tensors=repeated)
    assert same_logits(loaded_with("gpt2", tmp_path), model)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs", "keys"),
    [
        ("gpt2", ["norm"], ["ln_f"], ["transformer.ln_f.weight", "transformer.ln_f.bias"]),
        ("gpt2", ["attn_norm"], ["ln_1"], ["transformer.h.0.ln_1.weight"]),
        ("gpt2", ["pos_embed"], ["wpe"], ["transformer.wpe.weight"]),
        ("gpt2", ["o_proj"], ["attn.c_proj"], ["transformer.h.1.attn.c_proj.weight"]),
        ("gpt2-untied", ["head", "tok_embed"], ["lm_head", "wte"], ["lm_head.weight"]),
        ("llama", ["head"], ["lm_head"], ["lm_head.weight"]),
        ("llama", ["norm"], ["model.norm"], ["model.norm.weight"]),
        (
            "llama",
            ["mlp_norm"],
            ["post_attention_layernorm"],
            ["model.layers.1.post_attention_layernorm.weight"],
        ),
        ("llama", ["mlp"], ["down_proj", "gate_proj", "up_proj"], []),
        ("mixed-untied", ["norm"], ["norm"], ["norm.weight"]),
    ],
)
def test_modules_to_save_get_the_names_that_select_them_in_peft(kind, ours, theirs, keys, tmp_path):
    model = adapt(make(kind), modules_to_save=ours)
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert config["modules_to_save"] == theirs
    assert {PREFIX + key for key in keys} <= tensors.keys()
    assert same(own_numbers(loaded_with(kind, tmp_path)), own_numbers(model))


def test_word_that_ends_several_paths_means_all_of_them_as_in_peft(tmp_path):
    model = adapt(make("llama"), modules_to_save=["norm", "attn_norm", "mlp_norm"])
    save_adapter(model, tmp_path)
    rewrite(tmp_path, "adapter", dict(modules_to_save=["norm"]))
    assert same_logits(loaded_with("llama", tmp_path), model)
    rewrite(tmp_path, "adapter", drop=[f"{PREFIX}model.layers.0.input_layernorm.weight"])
    with pytest.raises(ValueError, match=r"missing model.layers.0.input_layernorm.weight \(8,\);"):
        loaded_with("llama", tmp_path)


def test_k_trained_whole_takes_q_and_v_of_the_base_along(tmp_path):
    options = dict(target_modules=["up_proj"], modules_to_save=["layers.1.attn.k_proj"])
    model = adapt(make(), **options)
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert config["modules_to_save"] == ["transformer.h.1.attn.c_attn"]
    attn = model.layers[1].attn
    parts = [p.weight.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)]
    fused = tensors[f"{PREFIX}transformer.h.1.attn.c_attn.weight"]
    assert np.array_equal(fused, np.concatenate(parts, 1))
    assert same_logits(loaded_with("gpt2", tmp_path), model)


def test_each_adapter_is_saved_with_its_own_numbers_whichever_is_active(tmp_path):
    model = make()
    adapt(model, "first", seed=1, bias="all", modules_to_save=["norm"])
    adapt(model, "second", seed=2, bias="lora_only", target_modules=["o_proj"])
    whole = dict(modules_to_save=["layers.0.attn.q_proj"], target_modules=["up_proj"])
    adapt(model, "third", seed=3, **whole)
    for name in adapters(model):
        save_adapter(model, tmp_path / name, name)
        ml.set_adapter(model, name)
        save_adapter(model, tmp_path / "active")
        assert contents(tmp_path / name) == contents(tmp_path / "active")
        again = make()
        load_adapter(again, tmp_path / name, name="other")
        assert active_adapter(again) == "other" and same_logits(again, model)


def test_loading_several_adapters_lets_one_switch_between_them(tmp_path):
    expected = {}
    for i, name in enumerate(("first", "second")):
        model = adapt(make(), seed=i, modules_to_save=["norm"], bias="all")
        save_adapter(model, tmp_path / name)
        expected[name] = logits(model)
    model = make()
    for name in expected:
        load_adapter(model, tmp_path / name, name)
    for name in ("first", "second", "first"):
        ml.set_adapter(model, name)
        assert logits(model).tobytes() == expected[name].tobytes()
    with ml.disable_adapter(model):
        assert same_logits(model, make())


def test_merged_adapter_is_saved_as_it_was_before_merging(tmp_path):
    model = adapt(make(), "whole", modules_to_save=["k_proj"], target_modules=["up_proj"])
    adapt(model, "merged", seed=4)
    for folder in ("before", "after"):
        for name in ("merged", "whole"):
            save_adapter(model, tmp_path / folder / name, name)
        if folder == "before":
            ml.merge_adapter(model)
    for name in ("merged", "whole"):
        assert contents(tmp_path / "before" / name) == contents(tmp_path / "after" / name)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_loaded_adapter_trains_on_and_is_saved_again(kind, tmp_path):
    save_adapter(adapt(make(kind), bias="all", modules_to_save=["norm"]), tmp_path)
    model = loaded_with(kind, tmp_path)
    base = {n: v.copy() for n, v in base_arrays(model).items()}
    before, start = {k: v.copy() for k, v in own_numbers(model).items()}, logits(model)
    optimizer = ml.AdamW(model.trainable_parameters(), lr=1e-2)
    for _ in range(2):
        ml.cross_entropy(model(IDS), np.roll(IDS, -1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same(base_arrays(model), base)
    moved = {k for k, v in own_numbers(model).items() if v.tobytes() != before[k].tobytes()}
    assert moved == {k for k in before if not k.endswith(".s")}
    save_adapter(model, tmp_path)
    again = loaded_with(kind, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes() != start.tobytes()
    assert same(own_numbers(again), own_numbers(model))


def test_adapter_is_loaded_in_the_precision_of_the_model(tmp_path):
    save_adapter(adapt(make()), tmp_path)
    model = make().to(np.float64)
    load_adapter(model, tmp_path)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert logits(model).dtype == np.float64


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module."])
def test_names_that_torch_changed_load(wrapper, tmp_path):
    model = adapt(make())
    save_adapter(model, tmp_path)
    for pattern in ("^", f"^{PREFIX}"):
        rewrite(tmp_path, "adapter", rename=(pattern, rf"\g<0>{wrapper}"))
        assert same_logits(loaded_with("gpt2", tmp_path), model)


HARMLESS = dict(
    base_model_name_or_path="gpt2",
    revision="main",
    auto_mapping={"a": 1},
    peft_version="9.9",
    megatron_config={"a": 1},
    loftq_config={"a": 1},
    eva_config={"rho": 2.0},
    inference_mode=False,
    task_type=None,
    layers_pattern="h",
    exclude_modules=["mlp"],
    use_dora=None,
    lora_bias=False,
    layer_replication=None,
    trainable_token_indices=None,
    target_parameters=[],
    fan_in_fan_out=False,
    init_lora_weights="orthogonal",
    modules_to_save=None,
    rank_pattern=None,
    alpha_pattern=None,
)


def test_options_of_peft_without_effect_pass_in_silence(tmp_path):
    model = adapt(make("mixed"))
    save_adapter(model, tmp_path)
    for changes in (HARMLESS, dict(init_lora_weights="Gaussian"), dict(init_lora_weights="eva")):
        rewrite(tmp_path, "adapter", changes)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert same_logits(loaded_with("mixed", tmp_path), model)


def test_unknown_options_are_named_in_one_warning_at_the_callers_line(tmp_path):
    save_adapter(adapt(make("mixed")), tmp_path)
    rewrite(tmp_path, "adapter", dict(zeta=None, alpha_of_tomorrow=1))
    with pytest.warns(UserWarning, match="ignored alpha_of_tomorrow, zeta") as caught:
        load_adapter(make("mixed"), tmp_path)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_that_peft_writes_too_are_ignored(kind, tmp_path):
    untied = not make(kind).config.tie_embeddings
    model = adapt(make(kind), target_modules=["head"] if untied else ["q_proj"])
    save_adapter(model, tmp_path)
    layout = layout_of(model.config)
    embedding = model.tok_embed.weight.data
    frozen = {f"{PREFIX}{layout['tok_embed'].path}.weight": embedding}  # save_embedding_layers
    if untied:
        head = model.head.base.weight.data
        head = head.T if layout["head"].transposed else head
        frozen[f"{PREFIX}{layout['head'].path}.base_layer.weight"] = np.ascontiguousarray(head)
    else:
        frozen[f"{PREFIX}{'head' if kind.startswith('mixed') else 'lm_head'}.weight"] = embedding
    rewrite(tmp_path, "adapter", tensors=frozen)
    again = loaded_with(kind, tmp_path)
    assert same(own_numbers(again), own_numbers(model)) and same_logits(again, model)


def test_adapter_names_its_base_as_long_as_the_base_is_what_was_loaded(tmp_path):
    model = load_model("docs-tiny")
    adapt(model)
    save_adapter(model, tmp_path / "bundled")
    assert adapter_base(tmp_path / "bundled") == "docs-tiny"
    ml.merge_and_unload(model)
    adapt(model)
    save_adapter(model, tmp_path / "merged")
    save_adapter(adapt(make()), tmp_path / "made")
    assert adapter_base(tmp_path / "merged") is None and adapter_base(tmp_path / "made") is None
    save_model(make(), tmp_path / "folder")
    model = adapt(load_model(tmp_path / "folder"), bias="all", modules_to_save=["norm"])
    save_adapter(model, tmp_path / "own")
    again = load_model(adapter_base(tmp_path / "own"))
    load_adapter(again, tmp_path / "own")
    assert same_logits(again, model)
    save_adapter(copy.deepcopy(again).to(np.float64), tmp_path / "own")
    assert adapter_base(tmp_path / "own") == again.loaded_from
    lora_layers(again)["layers.0.attn.q_proj"].base.weight.data[0, 0] += 1
    save_adapter(again, tmp_path / "own")
    assert adapter_base(tmp_path / "own") is None


def test_adapter_of_another_base_names_both(tmp_path):
    save_adapter(adapt(load_model("words-tiny"), target_modules=["up_proj"]), tmp_path)
    sentence = "was trained on words-tiny, this is docs-tiny .*: .* and .* more; load the model"
    with pytest.raises(ValueError, match=sentence) as raised:
        load_adapter(load_model("docs-tiny"), tmp_path)
    assert len(str(raised.value)) < 500
