"""Claims about DoRA, PiSSA and OLoRA: where they start, what they train, how they are undone, and
that their files say the same. `trained` makes everything that trains random, so that a variant that
did nothing would not pass. `snapshot` is what a failure must leave as it was.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minilora as ml
from minilora import functional as F
from minilora.generation.decoder import is_plain
from minilora.hub.hf_layout import layout_of
from minilora.lora import LowRank, adapters, lora_layers
from minilora.lora_targets import plain_path
from minilora.methods.variants import Dora
from minilora.tensor import Tensor
from minilora.testing import gradcheck

V, T, C = 11, 12, 16
LLAMA = dict(norm="rmsnorm", activation="swiglu", positions="rope", bias=False)
LAYOUTS = {
    "gpt2": dict(mlp_hidden=32),
    "llama": LLAMA | dict(n_kv_head=2, mlp_hidden=24, tie_embeddings=False),
    "minilora": dict(norm="rmsnorm", mlp_hidden=24),  # a mix that is neither
}
KINDS = {
    "dora": dict(use_dora=True),
    "pissa": dict(init_lora_weights="pissa"),
    "olora": dict(init_lora_weights="olora"),
    "dora from pissa": dict(use_dora=True, init_lora_weights="pissa"),
}
IDS = np.random.default_rng(1).integers(V, size=(2, T))
FEW = IDS[:1, :1]  # one row: through wide Linears, without forming A B
ALL_LAYOUTS = pytest.mark.parametrize("layout", LAYOUTS)
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
ROWS = pytest.mark.parametrize("ids", [IDS, FEW], ids=["many rows", "one row"])


def make(layout: str = "gpt2", seed: int = 0) -> ml.Transformer:
    """A model whose biases and norms are not the zeros and ones it would start with."""
    rng = np.random.default_rng(seed)
    sizes = dict(vocab_size=V, block_size=T, n_layer=2, n_head=4, n_embd=C)
    return shake(ml.Transformer(ml.TransformerConfig(**sizes, **LAYOUTS[layout]), rng=rng), rng)


def shake(model: ml.Transformer, rng: np.random.Generator) -> ml.Transformer:
    for p in model.trainable_parameters():
        p.data += rng.standard_normal(p.shape).astype(p.dtype) * 0.1
    return model


def add(model: ml.Transformer, kind: str, name: str = "default", **options) -> ml.Transformer:
    config = ml.LoraConfig(**{"r": 4, "lora_alpha": 6, **KINDS.get(kind, {}), **options})
    ml.add_adapter(model, config, name, rng=np.random.default_rng(5))
    return model


def trained(layout: str, kind: str, **options) -> ml.Transformer:
    return shake(add(make(layout), kind, **options), np.random.default_rng(8))


def logits(model: ml.Transformer, ids: np.ndarray = IDS) -> np.ndarray:
    with ml.no_grad():
        return model(ids).data


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def sgd(model: ml.Transformer, steps: int = 4, lr: float = 0.1) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = ml.cross_entropy(model(IDS), np.roll(IDS, -1, axis=1))
        loss.backward()
        losses.append(loss.item())
        for p in model.trainable_parameters():
            p.data -= np.float32(lr) * p.grad
            p.grad = None
    return losses


def base_bytes(model: ml.Transformer) -> dict[str, bytes]:
    """The base's parameters, whether they are wrapped or not."""
    return {
        plain_path(name): p.data.tobytes()
        for name, p in model.named_parameters()
        if ".adapters." not in name
    }


def snapshot(model: ml.Transformer) -> tuple:
    return (
        [(path, id(m)) for path, m in model.named_modules()],
        [(n, id(p), p.requires_grad, p.data.tobytes()) for n, p in model.named_parameters()],
        [(path, m.active, sorted(m.adapters)) for path, m in lora_layers(model).items()],
        list(adapters(model)),
    )


@ALL_LAYOUTS
@ROWS
def test_dora_equals_the_base_bit_for_bit_before_training(layout, ids):
    model = make(layout)
    before = logits(model, ids)
    add(model, "dora", target_modules="all-linear")
    assert logits(model, ids).tobytes() == before.tobytes()
    for layer in lora_layers(model).values():
        assert not layer.delta_weight("default").any()


@ALL_LAYOUTS
@ALL_KINDS
@ROWS
def test_every_kind_equals_the_base_up_to_rounding_before_training(layout, kind, ids):
    model = make(layout)
    before = logits(model, ids)
    add(model, kind, target_modules="all-linear")
    assert differ(logits(model, ids), before) <= 1e-5


@ALL_LAYOUTS
@ALL_KINDS
def test_training_moves_the_adapter_and_not_one_byte_of_the_base(layout, kind):
    model = make(layout)
    before, bytes_before = logits(model), base_bytes(model)
    add(model, kind, target_modules="all-linear")
    start = model.state_dict()
    losses = sgd(model)
    assert losses[-1] < losses[0] - 1e-2
    assert base_bytes(model) == bytes_before
    now = model.state_dict()
    moved = {name for name in now if not np.array_equal(now[name], start[name])}
    assert moved == {name for name in now if ".adapters." in name}
    with ml.disable_adapter(model):
        assert logits(model).tobytes() == before.tobytes()
    assert differ(logits(model), before) > 1e-2
    ml.delete_adapter(model, "default")
    assert logits(model).tobytes() == before.tobytes()
    assert not lora_layers(model)


@ALL_LAYOUTS
@ALL_KINDS
@ROWS
def test_merged_logits_are_the_unmerged_ones_and_unmerging_is_bit_exact(layout, kind, ids):
    model = trained(layout, kind, target_modules="all-linear")
    unmerged, before = logits(model, ids), base_bytes(model)
    assert differ(unmerged, logits(make(layout), ids)) > 1e-2
    ml.merge_adapter(model)
    assert base_bytes(model) != before
    assert differ(logits(model, ids), unmerged) <= 1e-4
    ml.unmerge_adapter(model)
    assert base_bytes(model) == before
    assert logits(model, ids).tobytes() == unmerged.tobytes()
    ml.merge_and_unload(model)
    assert not lora_layers(model)
    assert differ(logits(model, ids), unmerged) <= 1e-4


@ALL_KINDS
def test_delta_weight_is_the_same_while_merged(kind):
    model = trained("gpt2", kind)
    before = [layer.delta_weight("default") for layer in lora_layers(model).values()]
    ml.merge_adapter(model)
    for layer, delta in zip(lora_layers(model).values(), before, strict=True):
        np.testing.assert_array_equal(layer.delta_weight("default"), delta)


class One(ml.Module):
    def __init__(self, d_in: int, d_out: int) -> None:
        rng = np.random.default_rng(0)
        self.proj = ml.Linear(d_in, d_out, rng=rng)
        self.proj.bias.data[...] = rng.standard_normal(d_out)


def one(kind: str, d_in: int = 6, d_out: int = 5, random: bool = True, **options) -> ml.LoraLinear:
    """A single adapted float64 Linear; (random) with everything that trains random."""
    model = One(d_in, d_out)
    model.to(np.float64)
    add(model, kind, **{"target_modules": ["proj"], "r": 3, "lora_alpha": 7, **options})
    if random:
        shake(model, np.random.default_rng(2))
    return model.proj


@pytest.mark.parametrize("init", [True, "pissa", "olora"])
def test_dora_gives_every_column_the_length_m_and_the_direction_of_V(init):
    layer = one("dora", init_lora_weights=init)
    W, m = layer.base.weight.data, layer.adapters["default"].m.data
    V = W + 7 / 3 * layer.adapters["default"].A.data @ layer.adapters["default"].B.data
    if init is not True:
        start = one("dora", random=False, init_lora_weights=init)
        V -= 7 / 3 * start.adapters["default"].A.data @ start.adapters["default"].B.data
    lengths = np.sqrt((V**2).sum(axis=0))
    np.testing.assert_allclose(layer.delta_weight("default"), m * V / lengths - W, atol=1e-12)
    x = np.random.default_rng(1).standard_normal((4, 6))
    expected = x @ (m * V / lengths) + layer.base.bias.data
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, atol=1e-12)


def test_dora_m_starts_as_the_length_of_every_column():
    layer = one("dora", random=False)
    W, m = layer.base.weight.data, layer.adapters["default"].m
    assert m.shape == (5,)
    for j in range(5):
        assert m.data[j] == pytest.approx(sum(w * w for w in W[:, j]) ** 0.5, rel=1e-14)


@ALL_KINDS
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("p", [0.0, 0.4], ids=["no dropout", "dropout"])
def test_gradients_agree_with_central_differences_at_a_constant_norm(kind, rows, p):
    layer = one(kind, d_in=6, d_out=40 if rows == 1 else 5, lora_dropout=p)
    A, B = layer.adapters["default"].A, layer.adapters["default"].B
    W = vars(layer.adapters["default"]).get("residual", layer.base.weight).data
    norm = np.sqrt(((W + 7 / 3 * A.data @ B.data) ** 2).sum(axis=0))
    b, m = layer.base.bias.data, vars(layer.adapters["default"]).get("m")
    x = Tensor(np.random.default_rng(4).standard_normal((rows, 6)), requires_grad=True)
    inputs = [x, A, B] if m is None else [x, A, B, m]

    def by_hand(x, A, B, m=None):
        y = x @ W + (F.dropout(x, p, np.random.default_rng(3)) @ A) @ B * (7 / 3)
        return y + b if m is None else y * (m / norm) + b

    gradcheck(by_hand, *inputs, tol=1e-7)
    outs = [layer(x, np.random.default_rng(3)), by_hand(*inputs)]
    np.testing.assert_allclose(outs[0].data, outs[1].data, atol=1e-12)
    cotangent = np.random.default_rng(6).standard_normal(outs[0].shape)
    found, expected = (ml.grad((out * cotangent).sum(), inputs) for out in outs)
    for name, mine, its in zip("xABm"[: len(inputs)], found, expected, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-11, atol=1e-12, err_msg=name)
    assert layer.base.weight.grad is None


@ALL_KINDS
@ROWS
def test_the_graph_leads_to_all_that_trains_and_to_nothing_else(kind, ids):
    model = trained("gpt2", kind, target_modules="all-linear", bias="lora_only")
    stack, leaves = [model(ids).node], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor):
            leaves.add(id(node))
        stack.extend(parent for parent, _ in getattr(node, "edges", ()))
    assert leaves == {id(p) for p in model.trainable_parameters()} != set()


@pytest.mark.parametrize(("d_in", "d_out"), [(6, 9), (9, 6), (7, 7)])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_pissa_starts_as_the_best_approximation_of_its_rank(d_in, d_out, use_rslora):
    for r in range(1, min(d_in, d_out) + 1):
        layer = one("pissa", d_in, d_out, random=False, r=r, use_rslora=use_rslora)
        adapter = layer.adapters["default"]
        A, B, s = adapter.A.data, adapter.B.data, adapter.s
        W, residual = layer.base.weight.data, layer.adapters["default"].residual.data
        values = np.linalg.svd(W, compute_uv=False)
        np.testing.assert_allclose(residual, W - s * A @ B, atol=1e-14)
        # Eckart and Young: what the best approximation of rank r leaves are the other values.
        left = np.linalg.svd(residual, compute_uv=False)
        np.testing.assert_allclose(left[: len(values) - r], values[r:], atol=1e-12)
        np.testing.assert_allclose(left[len(values) - r :], 0, atol=1e-12)
        # A's columns and B's rows are orthogonal and equally long: the singular values' roots.
        np.testing.assert_allclose(A.T @ A, np.diag(values[:r] / s), atol=1e-12)
        np.testing.assert_allclose(B @ B.T, np.diag(values[:r] / s), atol=1e-12)
    assert np.abs(residual).max() < 1e-13  # the full rank leaves nothing


@pytest.mark.parametrize(("d_in", "d_out"), [(6, 9), (9, 6), (7, 7)])
def test_olora_starts_as_W_projected_on_orthonormal_rows(d_in, d_out):
    for r in range(1, min(d_in, d_out) + 1):
        layer = one("olora", d_in, d_out, random=False, r=r)
        A, B = layer.adapters["default"].A.data, layer.adapters["default"].B.data
        W, residual = layer.base.weight.data, layer.adapters["default"].residual.data
        np.testing.assert_allclose(B @ B.T, np.eye(r), atol=1e-13)
        np.testing.assert_allclose(A @ B, W @ B.T @ B, atol=1e-13)
        np.testing.assert_allclose(residual, W - 7 / r * A @ B, atol=1e-13)
        np.testing.assert_allclose((A @ B)[:r], W[:r], atol=1e-13)  # those rows span B's


@ALL_LAYOUTS
@ALL_KINDS
def test_dora_trains_d_out_numbers_more_per_matrix_and_the_others_as_many_as_lora(layout, kind):
    model = make(layout)
    total = ml.count_parameters(model)[1]
    shapes = [m.weight.shape for p, m in model.named_modules() if p.endswith("_proj")]
    add(model, kind, target_modules="all-linear", r=3)
    expected = sum(3 * (d_in + d_out) for d_in, d_out in shapes)
    if "dora" in kind:
        expected += sum(d_out for _, d_out in shapes)
    assert ml.count_parameters(model) == (expected, total + expected)


@ALL_LAYOUTS
@ALL_KINDS
def test_the_fast_decoder_writes_what_the_model_itself_would(layout, kind):
    model = trained(layout, kind, target_modules="all-linear")
    assert is_plain(model)
    ids = IDS[:, :2]
    found = ml.generate(model, ids, T - 2, temperature=0)
    for _ in range(T - 2):
        ids = np.concatenate([ids, logits(model, ids)[:, -1:].argmax(axis=2)], axis=1)
    np.testing.assert_array_equal(found, ids)


OPTIONS = {
    "q and v": {},
    "k": dict(target_modules=["k_proj"]),
    "all linear": dict(target_modules="all-linear"),
    "one layer": dict(target_modules="all-linear", layers_to_transform=1),
    "rslora": dict(target_modules=["q_proj", "down_proj"], use_rslora=True),
    "patterns": dict(
        target_modules="all-linear",
        rank_pattern={"v_proj": 1, "layers.1.attn.o_proj": 3},
        alpha_pattern={"up_proj": 7, "q_proj": 0.3, "layers.0.mlp.*": 5},
    ),
    "rslora and patterns": dict(
        target_modules="all-linear",
        use_rslora=True,
        rank_pattern={"v_proj": 1},
        alpha_pattern={"up_proj": 7},
    ),
    "lora_only": dict(bias="lora_only", target_modules=["q_proj", "down_proj"]),
    "norm and biases": dict(modules_to_save=["norm"], bias="all"),
    "high rank": dict(target_modules=["k_proj", "v_proj"], r=8),
}


@ALL_LAYOUTS
@ALL_KINDS
@pytest.mark.parametrize("options", OPTIONS)
def test_a_saved_adapter_is_loaded_as_the_same_function(layout, kind, options, tmp_path):
    model = trained(layout, kind, **OPTIONS[options])
    before = base_bytes(model)
    ml.save_adapter(model, tmp_path)
    again = make(layout)
    ml.load_adapter(again, tmp_path)
    assert differ(logits(model), logits(make(layout))) > 1e-2
    assert differ(logits(again), logits(model)) <= 1e-5
    assert set(lora_layers(again)) == set(lora_layers(model))
    for path, layer in lora_layers(again).items():
        delta = ml.get_delta_weight(model, path)
        np.testing.assert_allclose(layer.delta_weight("default"), delta, atol=2e-6)
        assert type(layer.adapters["default"]) is (Dora if "dora" in kind else LowRank)
    assert base_bytes(model) == before
    config = adapters(again)["default"].config
    assert (config.use_dora, config.init_lora_weights) == ("dora" in kind, True)
    ml.merge_adapter(model)
    ml.save_adapter(model, tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path)


@pytest.mark.parametrize("layout", ["llama", "minilora"])
@pytest.mark.parametrize("options", OPTIONS)
def test_dora_is_loaded_bit_for_bit_where_nothing_is_fused(layout, options, tmp_path):
    model = trained(layout, "dora", **OPTIONS[options])
    ml.save_adapter(model, tmp_path)
    again = make(layout)
    ml.load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()
    found, expected = again.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def read(folder) -> tuple[dict, dict[str, np.ndarray]]:
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def rewrite(folder, config=(), drop=(), tensors=()) -> None:
    data, arrays = read(folder)
    arrays = {k: v for k, v in (arrays | dict(tensors)).items() if k not in drop}
    (folder / "adapter_config.json").write_text(json.dumps(data | dict(config)))
    save_file(arrays, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def c_attn(i: int) -> str:
    return f"base_model.model.transformer.h.{i}.attn.c_attn."


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dora_has_pefts_key_and_shape_beside_A_and_B(layout, tmp_path):
    model = trained(layout, "dora", target_modules=["o_proj", "up_proj"])
    model.layers[0].mlp.up_proj.adapters["default"].m.data[3] *= -1  # training may do that
    ml.save_adapter(model, tmp_path)
    config, tensors = read(tmp_path)
    assert config["use_dora"] is True
    where = layout_of(model.config)
    for path, layer in lora_layers(model).items():
        key = f"base_model.model.{where[path].path}.lora_magnitude_vector"
        np.testing.assert_array_equal(tensors.pop(key), layer.adapters["default"].m.data)
    assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in tensors)


def test_dora_of_q_and_v_is_one_of_c_attn_in_which_k_has_its_own_norms(tmp_path):
    model = trained("gpt2", "dora")
    ml.save_adapter(model, tmp_path)
    _, tensors = read(tmp_path)
    for i, block in enumerate(model.layers):
        q, k, v = block.attn.q_proj, block.attn.k_proj, block.attn.v_proj
        m = np.split(tensors[f"{c_attn(i)}lora_magnitude_vector"], 3)  # (3C,) -> (C,) each
        np.testing.assert_array_equal(m[0], q.adapters["default"].m.data)
        np.testing.assert_array_equal(m[1], np.linalg.norm(k.weight.data, axis=0))
        np.testing.assert_array_equal(m[2], v.adapters["default"].m.data)
        # What PEFT makes of the file: k stays as it is.
        A, B = (tensors[f"{c_attn(i)}lora_{x}.weight"].T for x in "AB")
        W = np.concatenate([q.base.weight.data, k.weight.data, v.base.weight.data], axis=1)
        direction = W + 6 / 4 * A @ B
        became = np.split(np.concatenate(m) * direction / np.linalg.norm(direction, axis=0), 3, 1)
        np.testing.assert_allclose(became[1], k.weight.data, rtol=1e-6)
        for third, layer in ((0, q), (2, v)):
            expected = layer.base.weight.data + layer.delta_weight("default")
            np.testing.assert_allclose(became[third], expected, atol=1e-6)


def write_c_attn_dora(folder, B=None, m=None, shift=None) -> dict[str, np.ndarray]:
    """What PEFT would write for DoRA on c_attn of a model with the weights of make()."""
    rng = np.random.default_rng(0)
    model = make()
    ml.save_adapter(trained("gpt2", "dora"), folder)
    tensors = {}
    for i, block in enumerate(model.layers):
        attn = block.attn
        W = np.concatenate([p.weight.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)], 1)
        norms = np.nextafter(np.linalg.norm(W, axis=0), 0)  # as summed in another order
        tensors[f"{c_attn(i)}lora_A.weight"] = rng.standard_normal((3, C)).astype(np.float32)
        random = rng.standard_normal((3 * C, 3)).astype(np.float32)
        tensors[f"{c_attn(i)}lora_B.weight"] = random if B is None else B
        tensors[f"{c_attn(i)}lora_magnitude_vector"] = norms if m is None else norms * m
        if shift is not None:
            biases = [p.bias.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)]
            tensors[f"{c_attn(i)}base_layer.bias"] = np.concatenate(biases) + shift
    bias = "none" if shift is None else "lora_only"
    rewrite(folder, dict(r=3, lora_alpha=1.5, bias=bias), tensors=tensors)
    return tensors


def only(third: int, value: float = 1.0) -> np.ndarray:
    """(3C, 3): a B that is not zero in one third."""
    B = np.zeros((3 * C, 3), np.float32)
    B[third * C : (third + 1) * C] = value
    return B


def test_c_attn_dora_becomes_three_with_the_same_A_and_a_third_of_B_and_m(tmp_path):
    factor = np.random.default_rng(3).uniform(0.5, 2, 3 * C).astype(np.float32)
    tensors = write_c_attn_dora(tmp_path, m=factor)
    model = make()
    ml.load_adapter(model, tmp_path)
    assert len(lora_layers(model)) == 6
    for i in range(2):
        for third, x in enumerate("qkv"):
            layer = lora_layers(model)[f"layers.{i}.attn.{x}_proj"]
            A, B = (tensors[f"{c_attn(i)}lora_{x}.weight"].T for x in "AB")
            m = np.split(tensors[f"{c_attn(i)}lora_magnitude_vector"], 3)[third]
            np.testing.assert_array_equal(layer.adapters["default"].A.data, A)
            np.testing.assert_array_equal(
                layer.adapters["default"].B.data, np.split(B, 3, 1)[third]
            )
            np.testing.assert_array_equal(layer.adapters["default"].m.data, m)
    for _ in range(2):
        ml.save_adapter(model, tmp_path)
        saved = read(tmp_path)[1]
        assert saved.keys() == tensors.keys()
        assert all(np.array_equal(saved[key], tensors[key]) for key in tensors)
        model = make()
        ml.load_adapter(model, tmp_path)


def test_a_third_of_c_attn_that_dora_left_as_it_was_is_not_adapted(tmp_path):
    write_c_attn_dora(tmp_path, B=only(0))
    model = make()
    ml.load_adapter(model, tmp_path)
    assert list(lora_layers(model)) == ["layers.0.attn.q_proj", "layers.1.attn.q_proj"]


@pytest.mark.parametrize("change", [1 / 4, 1 / 2**16])
def test_a_third_of_c_attn_of_which_dora_changed_only_the_lengths_is_adapted(change, tmp_path):
    lengths = np.ones(3 * C, np.float32)
    lengths[2 * C + 5] += change
    write_c_attn_dora(tmp_path, B=only(0), m=lengths)
    model = make()
    ml.load_adapter(model, tmp_path)
    assert [path[-6:] for path in lora_layers(model)] == ["q_proj", "v_proj"] * 2
    W = model.layers[1].attn.v_proj.base.weight.data
    expected = np.zeros_like(W)
    expected[:, 5] = W[:, 5] * change
    delta = ml.get_delta_weight(model, "layers.1.attn.v_proj")
    np.testing.assert_allclose(delta, expected, atol=1e-6)


def test_an_untrained_dora_of_c_attn_stays_with_q_k_and_v_and_changes_nothing(tmp_path):
    write_c_attn_dora(tmp_path, B=np.zeros((3 * C, 3), np.float32))
    model = make()
    ml.load_adapter(model, tmp_path)
    assert len(lora_layers(model)) == 6
    assert differ(logits(model), logits(make())) <= 1e-5


def test_a_trained_bias_keeps_a_third_of_c_attn_that_dora_left_as_it_was(tmp_path):
    shift = np.repeat(np.array([0, 1, 0], np.float32), C)  # of k
    write_c_attn_dora(tmp_path, B=only(0), shift=shift)
    model = make()
    ml.load_adapter(model, tmp_path)
    assert [path[-6:] for path in lora_layers(model)] == ["q_proj", "k_proj"] * 2
    k, base = model.layers[0].attn.k_proj, make().layers[0].attn.k_proj
    np.testing.assert_array_equal(k.base.bias.data, base.bias.data + 1)
    assert np.abs(k.delta_weight("default")).max() <= 1e-6


@pytest.mark.parametrize("kind", ["pissa", "olora"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_pissa_and_olora_are_saved_as_lora_of_twice_the_rank_beside_the_whole_W(
    kind, use_rslora, tmp_path
):
    target = dict(target_modules=["o_proj"], use_rslora=use_rslora)
    start, model = add(make("llama"), kind, **target), trained("llama", kind, **target)
    ml.save_adapter(model, tmp_path)
    config, tensors = read(tmp_path)
    assert (config["r"], config["init_lora_weights"], config["use_dora"]) == (8, True, False)
    assert config["lora_alpha"] == pytest.approx(6 * (2**0.5 if use_rslora else 2), rel=1e-15)
    assert len(tensors) == 4
    for i in range(2):
        layer, first = model.layers[i].attn.o_proj, start.layers[i].attn.o_proj
        key = f"base_model.model.model.layers.{i}.self_attn.o_proj.lora_"
        A = np.concatenate(
            [layer.adapters["default"].A.data, first.adapters["default"].A.data], axis=1
        )
        B = np.concatenate([layer.adapters["default"].B.data, -first.adapters["default"].B.data])
        np.testing.assert_array_equal(tensors[f"{key}A.weight"], A.T)
        np.testing.assert_array_equal(tensors[f"{key}B.weight"], B.T)


def test_dora_from_pissa_is_saved_as_dora_of_twice_the_rank(tmp_path):
    model = trained("llama", "dora from pissa", target_modules=["o_proj"])
    ml.save_adapter(model, tmp_path)
    config, tensors = read(tmp_path)
    assert (config["r"], config["init_lora_weights"], config["use_dora"]) == (8, True, True)
    key = "base_model.model.model.layers.1.self_attn.o_proj.lora_magnitude_vector"
    layer = model.layers[1].attn.o_proj
    np.testing.assert_array_equal(tensors[key], layer.adapters["default"].m.data)


@ALL_LAYOUTS
@ALL_KINDS
def test_an_untrained_adapter_is_loaded_as_no_change(layout, kind, tmp_path):
    ml.save_adapter(add(make(layout), kind, target_modules="all-linear"), tmp_path)
    again = make(layout)
    ml.load_adapter(again, tmp_path)
    assert differ(logits(again), logits(make(layout))) <= 1e-5


@ALL_KINDS
def test_a_loaded_adapter_trains_on_and_is_saved_again(kind, tmp_path):
    ml.save_adapter(trained("gpt2", kind), tmp_path)
    model = make()
    ml.load_adapter(model, tmp_path)
    before, start = base_bytes(model), model.state_dict()
    losses = sgd(model)
    assert losses[-1] < losses[0] - 1e-3
    assert base_bytes(model) == before
    now = model.state_dict()
    moved = {name for name in now if not np.array_equal(now[name], start[name])}
    assert moved == {name for name in now if ".adapters." in name}
    ml.save_adapter(model, tmp_path)
    again = make()
    ml.load_adapter(again, tmp_path)
    assert differ(logits(again), logits(model)) <= 1e-5


def several(*kinds: str) -> tuple[ml.Transformer, dict[str, np.ndarray]]:
    """A model with one trained adapter of each of these kinds, and their logits by name."""
    model, expected = make(), {}
    for i, kind in enumerate(kinds):
        name = f"{i} {kind}"
        shake(add(model, kind, name, target_modules="all-linear"), np.random.default_rng(i))
        alone = shake(add(make(), kind, target_modules="all-linear"), np.random.default_rng(i))
        expected[name] = logits(alone)
    return model, expected


SEVERAL = [
    ("lora", "dora"),
    ("dora", "lora"),
    ("pissa", "pissa"),
    ("olora", "dora from pissa", "lora", "pissa"),
]


@pytest.mark.parametrize("kinds", SEVERAL, ids=" ".join)
def test_adapters_of_several_kinds_are_switched_merged_and_deleted(kinds):
    model, expected = several(*kinds)
    base, before = logits(make()), base_bytes(make())
    for name in [*expected, *expected]:
        ml.set_adapter(model, name)
        assert logits(model).tobytes() == expected[name].tobytes()
        mine = [n for n, p in model.named_parameters() if f".adapters.{name}." in n]
        assert [n for n, p in model.named_parameters() if p.requires_grad] == mine
        with ml.disable_adapter(model):
            assert logits(model).tobytes() == base.tobytes()
        ml.merge_adapter(model)
        assert differ(logits(model), expected[name]) <= 1e-4
        ml.unmerge_adapter(model)
    names = list(expected)
    for i, name in enumerate(names):
        assert base_bytes(model) == before
        ml.delete_adapter(model, name)
        assert not any(f".adapters.{name}." in n for n, _ in model.named_parameters())
        assert all(name not in layer.adapters for layer in lora_layers(model).values())
        for other in names[i + 1 :]:
            ml.set_adapter(model, other)
            assert logits(model).tobytes() == expected[other].tobytes()
    assert logits(model).tobytes() == base.tobytes() and not lora_layers(model)


@pytest.mark.parametrize("kinds", SEVERAL, ids=" ".join)
def test_each_of_several_adapters_is_saved_and_loaded_beside_the_others(kinds, tmp_path):
    model, expected = several(*kinds)
    again = make()
    for name in expected:
        ml.save_adapter(model, tmp_path / name, name)
        ml.load_adapter(again, tmp_path / name, name)
    for name in expected:
        ml.set_adapter(again, name)
        assert differ(logits(again), expected[name]) <= 1e-5


def test_a_second_pissa_starts_from_W_whatever_the_first_has_learned():
    model = add(trained("gpt2", "pissa"), "pissa", "second")
    layer = model.layers[0].attn.q_proj
    fresh = add(make(), "pissa").layers[0].attn.q_proj
    np.testing.assert_array_equal(layer.adapters["second"].A.data, fresh.adapters["default"].A.data)
    np.testing.assert_array_equal(
        layer.adapters["second"].residual.data, fresh.adapters["default"].residual.data
    )
    assert differ(logits(model), logits(make())) <= 1e-5


def change_base(model):
    model.layers[1].attn.v_proj.base.weight.data[0, 0] += 0.01


def empty_a_column(model):
    model.layers[1].attn.k_proj.weight.data[:, 3] = 0  # of k, which is not adapted


def spoil_m(model):
    model.layers[1].attn.v_proj.adapters["default"].m.data[0] = np.nan


@pytest.mark.parametrize(
    ("kind", "spoil", "sentence"),
    [
        (
            "pissa",
            change_base,
            "weights have changed since PiSSA or OLoRA took a part out.*change the base",
        ),
        (
            "olora",
            change_base,
            "weights have changed since PiSSA or OLoRA took a part out.*change the base",
        ),
        ("dora", empty_a_column, "a column of c_attn is all zeros; use_dora=False"),
        ("dora", spoil_m, "h.1.attn.c_attn.lora_magnitude_vector holds NaN or infinity"),
    ],
)
def test_an_adapter_that_cannot_be_saved_is_refused_and_nothing_is_written(
    kind, spoil, sentence, tmp_path
):
    model = trained("gpt2", kind)
    spoil(model)
    before = snapshot(model)
    with pytest.raises(ValueError, match=sentence):
        ml.save_adapter(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert snapshot(model) == before


def test_lora_and_dora_beside_a_changed_base_are_saved_as_before(tmp_path):
    for kind in ("lora", "dora"):
        model = trained("llama", kind)
        ml.save_adapter(model, tmp_path / "before")
        change_base(model)
        ml.save_adapter(model, tmp_path / "after")
        assert contents(tmp_path / "before") == contents(tmp_path / "after")


M = "base_model.model.layers.0.attn.q_proj.lora_magnitude_vector"
UNFIT = [
    ("dora", dict(drop=[M]), r"missing layers.0.attn.q_proj.lora_magnitude_vector \(16,\)"),
    ("dora", dict(tensors={M: np.ones(C + 1)}), r"magnitude_vector is \(17,\) where \(16,\)"),
    (
        "dora",
        dict(tensors={M: np.full(C, np.nan)}),
        "magnitude_vector in .* holds NaN or infinity",
    ),
    ("dora", dict(config=dict(use_dora=False)), r"unexpected .*lora_magnitude_vector \(16,\)"),
    ("dora", dict(config=dict(r=5)), r"q_proj.lora_A.weight is \(4, 16\) where \(5, 16\)"),
    (
        "lora",
        dict(config=dict(use_dora=True)),
        r"missing .*v_proj.lora_magnitude_vector \(16,\) and 2 more",
    ),
    ("lora", dict(tensors={M: np.ones(C)}), r"unexpected .*lora_magnitude_vector \(16,\)"),
    ("lora", dict(config=dict(init_lora_weights="pissa")), "has changed the base.*convert the"),
    ("pissa", dict(config=dict(init_lora_weights="olora")), "has changed the base.*convert the"),
]


@pytest.mark.parametrize(("kind", "damage", "sentence"), UNFIT)
@pytest.mark.parametrize("others", [(), ("dora", "pissa")], ids=["alone", "beside others"])
def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(
    kind, damage, sentence, others, tmp_path
):
    ml.save_adapter(trained("minilora", kind), tmp_path)
    rewrite(tmp_path, **damage)
    model = make("minilora")
    for other in others:
        shake(add(model, other, other), np.random.default_rng(3))
    before = snapshot(model)
    with pytest.raises(ValueError, match=sentence):
        ml.load_adapter(model, tmp_path)
    assert snapshot(model) == before


@pytest.mark.parametrize("value", [None, False])
def test_use_dora_that_is_not_true_means_lora(value, tmp_path):
    model = trained("minilora", "lora")
    ml.save_adapter(model, tmp_path)
    rewrite(tmp_path, dict(use_dora=value))
    again = make("minilora")
    ml.load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()
    assert adapters(again)["default"].config.use_dora is False
