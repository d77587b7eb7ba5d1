"""Claims about ΔW and its directions, on matrices whose answers are known without computing them.

`matrix` builds one from its singular values and from directions that are axes turned at random, so
that a claim that holds for a diagonal matrix is tested for one that does not look like it.
"""

import copy
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from strategies import few, seeds

from minilora import lora as L
from minilora.analysis import deltas as A
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.nn import Linear, Module
from minilora.tensor import Tensor
from minilora.transformer import Transformer, TransformerConfig

SIZES = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)
LLAMA = dict(
    n_kv_head=1,
    mlp_hidden=12,
    norm="rmsnorm",
    activation="swiglu",
    positions="rope",
    bias=False,
    tie_embeddings=False,
)


def make(**options) -> Transformer:
    return Transformer(TransformerConfig(**SIZES, **options), rng=np.random.default_rng(0))


def add(model: Module, name: str = "default", seed: int = 1, **options) -> None:
    """An adapter with B ≠ 0 and r ≠ alpha."""
    config = LoraConfig(r=2, lora_alpha=6, **options)
    L.add_adapter(model, config, name, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    for layer in L.lora_layers(model).values():
        B = layer.adapters[name].B
        B.data[...] = rng.standard_normal(B.shape) * 0.1


def orthonormal(d: int, n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, n)))[0]


def matrix(sigma: list[float], d_in: int, d_out: int, seed: int = 0) -> np.ndarray:
    U, V = orthonormal(d_in, len(sigma), seed), orthonormal(d_out, len(sigma), seed + 1)
    return (U * sigma) @ V.T


def axes(*numbers: int, d: int = 6) -> np.ndarray:
    return np.eye(d)[:, list(numbers)]


class Wrapper(Module):
    """Holds a layer as `.base` and has a Linear of its own, as adapters of other kinds do."""

    def __init__(self, base: Module) -> None:
        self.base = base
        self.down = Linear(8, 2, rng=np.random.default_rng(7))


def test_every_linear_of_the_blocks_is_found_and_neither_embeddings_nor_head():
    found = A.weight_matrices(make(**LLAMA))
    names = "attn.q_proj attn.k_proj attn.v_proj attn.o_proj mlp.gate_proj mlp.up_proj"
    paths = [f"layers.{i}.{name}" for i in (0, 1) for name in [*names.split(), "mlp.down_proj"]]
    assert list(found) == paths
    assert found["layers.1.attn.k_proj"].shape == (8, 4)
    assert found["layers.1.mlp.down_proj"].shape == (12, 8)


def test_weights_are_float64_copies_of_the_model_s_own():
    model = make()
    before = model.state_dict()
    for path, W in A.weight_matrices(model).items():
        assert W.dtype == np.float64
        np.testing.assert_array_equal(W, before[f"{path}.weight"])
        W += 1
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_an_active_adapter_counts_under_the_path_of_the_layer_it_wraps():
    model, plain = make(), make()
    add(model)
    W, found = A.weight_matrices(plain), A.weight_matrices(model)
    assert list(found) == list(W)
    for path, layer in L.lora_layers(model).items():
        np.testing.assert_array_equal(found[path], W[path] + layer.delta_weight("default"))
        assert not np.array_equal(found[path], W[path])
    untouched = "layers.0.mlp.up_proj"
    np.testing.assert_array_equal(found[untouched], W[untouched])


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"init_lora_weights": "pissa"}],
    ids=["lora", "rslora", "dora", "pissa"],
)
def test_the_weight_in_effect_is_what_the_layer_multiplies_with(options):
    model = make()
    add(model, target_modules="all-linear", **options)
    model.to(np.float64)
    for path, W in A.weight_matrices(model).items():
        x = np.random.default_rng(3).standard_normal((5, len(W)))
        layer = L.lora_layers(model)[path]
        np.testing.assert_allclose(
            layer(Tensor(x)).data, x @ W + layer.base.bias.data, rtol=0, atol=1e-13
        )


def test_only_the_active_adapter_counts():
    model = make()
    W = A.weight_matrices(model)
    add(model, "one", seed=1)
    one = A.weight_matrices(model)
    add(model, "two", seed=2)
    two = A.weight_matrices(model)
    L.set_adapter(model, "one")
    q = "layers.0.attn.q_proj"
    assert not np.array_equal(one[q], two[q])
    np.testing.assert_array_equal(A.weight_matrices(model)[q], one[q])
    with L.disable_adapter(model):
        np.testing.assert_array_equal(A.weight_matrices(model)[q], W[q])


def test_merged_weights_are_the_unmerged_ones_rounded_to_float32():
    model = make()
    add(model)
    unmerged = A.weight_matrices(model)
    L.merge_adapter(model)
    for path, W in A.weight_matrices(model).items():
        np.testing.assert_array_equal(W, unmerged[path].astype(np.float32))
    L.unmerge_adapter(model)
    for path, W in A.weight_matrices(model).items():
        np.testing.assert_array_equal(W, unmerged[path])


def test_other_wrappers_leave_the_paths_as_they_were_and_add_none():
    model = make()
    before = A.weight_matrices(model)
    for path in ("layers.0.attn.q_proj", "layers.1.mlp.up_proj", "layers.1.attn"):
        model.set_submodule(path, Wrapper(model.get_submodule(path)))
    found = A.weight_matrices(model)
    assert list(found) == list(before)
    for path, W in found.items():
        np.testing.assert_array_equal(W, before[path])


def test_a_wrapped_adapter_still_counts():
    model, plain = make(), make()
    add(model)
    q = "layers.0.attn.q_proj"
    delta = L.get_delta_weight(model, q)
    model.set_submodule(q, Wrapper(model.get_submodule(q)))
    expected = A.weight_matrices(plain)[q] + delta
    np.testing.assert_array_equal(A.weight_matrices(model)[q], expected)


def test_delta_weights_of_an_adapter_are_its_own_delta_weight():
    model = make()
    add(model)
    for path, delta in A.delta_weights(make(), model).items():
        if path in L.lora_layers(model):
            own = L.get_delta_weight(model, path)
            assert np.linalg.norm(own) > 0.1
            np.testing.assert_allclose(delta, own, rtol=0, atol=1e-16)
            assert len(A.subspace_similarities(delta, delta)) == 2  # directions: its rank
        else:
            assert not delta.any()


def test_delta_weights_of_full_fine_tuning_are_the_difference_of_the_weights():
    before = make()
    after = copy.deepcopy(before)
    rng = np.random.default_rng(4)
    for p in after.parameters():
        p.data += rng.standard_normal(p.shape, dtype=np.float32) * np.float32(0.01)
    old, new = before.state_dict(), after.state_dict()
    deltas = A.delta_weights(before, after)
    assert len(deltas) == 12
    for path, delta in deltas.items():
        name = f"{path}.weight"
        np.testing.assert_array_equal(delta, new[name].astype(np.float64) - old[name])
        assert delta.any()
        np.testing.assert_array_equal(A.delta_weights(after, before)[path], -delta)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_delta_weights_and_starts_with_none(name):
    before, after = make(), make()
    METHODS[name].prepare(after, LoraConfig(r=2, lora_alpha=6), np.random.default_rng(1))
    deltas = A.delta_weights(before, after)
    assert list(deltas) == list(A.weight_matrices(before))
    for delta in deltas.values():  # PiSSA and OLoRA take W apart and leave its float32 rounding
        np.testing.assert_allclose(delta, 0, rtol=0, atol=2e-7)


def test_models_with_other_matrices_are_not_compared():
    wider, llama = make(mlp_hidden=16), make(**LLAMA)
    with pytest.raises(ValueError, match=r"layers.0.mlp.up_proj is \(8, 32\) before and \(8, 16\)"):
        A.delta_weights(make(), wider)
    with pytest.raises(ValueError, match="mlp.gate_proj is missing before and .* after"):
        A.delta_weights(make(), llama)
    with pytest.raises(ValueError, match="mlp.gate_proj is .* before and missing after") as error:
        A.delta_weights(llama, make())
    assert "q_proj" not in str(error.value)


def test_singular_values_of_a_diagonal_matrix_are_its_magnitudes_in_descending_order():
    M = np.zeros((3, 5))
    M[[0, 1, 2], [0, 1, 2]] = [1, -7, 3]
    np.testing.assert_array_equal(A.singular_values(M), [7, 3, 1])
    np.testing.assert_array_equal(A.singular_values(M.T), [7, 3, 1])


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_n_equal_singular_values_have_rank_n_by_every_measure(n):
    M = matrix([0.3] * n, 12, 15, seed=n)
    assert A.effective_rank(M) == pytest.approx(n, rel=1e-12)
    assert A.stable_rank(M) == pytest.approx(n, rel=1e-12)
    assert A.k90(M) == math.ceil(9 * n / 10)
    assert A.k90(M, share=1) == n


def test_measures_of_rank_differ_for_unequal_singular_values():
    M = matrix([2, 1, 1], 6, 9)  # σ / Σσ = 1/2, 1/4, 1/4; σ² = 4, 1, 1
    assert A.effective_rank(M) == pytest.approx(2**1.5, rel=1e-13)
    assert A.stable_rank(M) == pytest.approx(1.5, rel=1e-13)
    assert [A.k90(M, share) for share in (0.6, 4 / 6, 0.7, 5 / 6, 0.84)] == [1, 1, 2, 2, 3]
    assert A.k90(M) == 3


def test_an_outer_product_has_rank_1_by_every_measure():
    M = np.outer([1, 2, 3], [4.0, -5, 6, 7])
    assert A.effective_rank(M) == pytest.approx(1, abs=1e-12)
    assert A.stable_rank(M) == pytest.approx(1, abs=1e-12)
    assert A.k90(M) == 1


def test_a_zero_matrix_has_rank_0_by_every_measure():
    M = np.zeros((3, 4))
    assert (A.effective_rank(M), A.stable_rank(M), A.k90(M)) == (0, 0, 0)


@given(seeds)
@few
def test_measures_of_rank_do_not_see_rotation_scale_or_transposition(seed):
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((5, 7))
    turned = orthonormal(5, 5, seed) @ M @ orthonormal(7, 7, seed + 1)
    for same in (turned, M * 1e-200, M * -3e180, M.T):
        assert A.effective_rank(same) == pytest.approx(A.effective_rank(M), rel=1e-12)
        assert A.stable_rank(same) == pytest.approx(A.stable_rank(M), rel=1e-12)
        assert A.k90(same) == A.k90(M)


def test_rounding_does_not_add_to_the_directions_that_hold_a_share():
    assert 0.28 * 25 > 7
    assert A.k90(np.eye(25), share=0.28) == 7


@given(seeds)
@few
def test_measures_of_rank_lie_between_1_and_the_rank(seed):
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((6, 3)) @ rng.standard_normal((3, 8))
    for measure in (A.effective_rank, A.stable_rank, A.k90):
        assert 1 <= measure(M) <= 3 * (1 + 1e-12)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan])
def test_k90_refuses_a_share_that_is_none(share):
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
        A.k90(np.eye(3), share)


def test_relative_norm_is_the_ratio_of_frobenius_norms():
    assert A.relative_norm(np.array([[3, 4], [0, 0]]), np.array([[6, 0], [0, 8]])) == 0.5
    assert A.relative_norm(np.zeros((2, 2)), np.eye(2)) == 0
    with pytest.raises(ValueError, match="W is all zeros"):
        A.relative_norm(np.eye(2), np.zeros((2, 2)))


def test_truncation_keeps_the_largest_singular_values():
    M = np.diag([1.0, 3, -2])
    np.testing.assert_array_equal(A.truncate(M, 0), np.zeros((3, 3)))
    np.testing.assert_allclose(A.truncate(M, 1), np.diag([0, 3, 0]), rtol=0, atol=1e-15)
    np.testing.assert_allclose(A.truncate(M, 2), np.diag([0, 3, -2]), rtol=0, atol=1e-15)
    np.testing.assert_allclose(A.truncate(M, 3), M, rtol=0, atol=1e-15)
    assert [A.eckart_young_tail(M, k) for k in range(4)] == [14, 5, 1, 0]


@given(seeds)
@few
def test_the_tail_is_the_squared_error_of_truncation(seed):
    M = np.random.default_rng(seed).standard_normal((6, 4))
    for k in range(5):
        cut = A.truncate(M, k)
        assert np.linalg.matrix_rank(cut) == k
        error = np.sum((M - cut) ** 2)
        assert A.eckart_young_tail(M, k) == pytest.approx(error, rel=1e-12, abs=1e-26)


@given(seeds)
@few
def test_no_other_matrix_of_rank_k_is_nearer_than_the_truncation(seed):
    rng = np.random.default_rng(seed)
    M, k = rng.standard_normal((6, 5)), 2
    least = np.sum((M - A.truncate(M, k)) ** 2)
    Q = orthonormal(6, k, seed)
    assert np.sum((M - Q @ (Q.T @ M)) ** 2) > least  # M seen in k random directions
    near = np.linalg.svd(M)[0][:, :k] + 0.01 * rng.standard_normal((6, k))
    nearby = near @ np.linalg.lstsq(near, M, rcond=None)[0]
    assert np.sum((M - nearby) ** 2) > least


@pytest.mark.parametrize(
    "angle", [0, 1e-12, 1e-9, 1e-4, 0.3, math.pi / 4, 1.5, math.pi / 2 - 1e-9, math.pi / 2]
)
def test_the_angle_of_a_known_rotation_is_found_even_if_tiny(angle):
    turn = orthonormal(6, 6, 3)
    X = turn @ axes(0, 1)
    Y = turn @ (axes(0, 1) * [1, math.cos(angle)] + axes(2, 2) * [0, math.sin(angle)])
    np.testing.assert_allclose(A.principal_angles(X, Y), [0, angle], rtol=0, atol=1e-15)


def test_angles_are_ascending_and_as_many_as_the_smaller_space_has_dimensions():
    a, b = 1.1, 0.2
    X = axes(0, 1, 4)
    Y = np.stack([[math.cos(a), 0, math.sin(a), 0, 0, 0], [0, math.cos(b), 0, math.sin(b), 0, 0]]).T
    for one, other in ((X, Y), (Y, X)):
        np.testing.assert_allclose(A.principal_angles(one, other), [b, a], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(A.principal_angles(axes(0, 1), axes(2, 3, 4)), [math.pi / 2] * 2)


@given(seeds)
@few
def test_angles_belong_to_the_spaces_and_not_to_their_columns(seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((7, 2)), rng.standard_normal((7, 3))
    angles = A.principal_angles(X, Y)
    twice = np.hstack([X, X[:, :1]])  # a repeated column adds no direction
    turn = orthonormal(7, 7, seed)
    for same in (
        A.principal_angles(Y, X),
        A.principal_angles(twice, Y),
        A.principal_angles(-3 * X[:, ::-1], Y),
        A.principal_angles(turn @ X, turn @ Y),
    ):
        np.testing.assert_allclose(same, angles, rtol=0, atol=1e-12)
    np.testing.assert_allclose(A.principal_angles(X, np.hstack([Y, X])), [0, 0], rtol=0, atol=1e-12)


@given(seeds)
@few
def test_a_space_is_wholly_similar_to_itself_and_to_what_holds_it(seed):
    X = np.random.default_rng(seed).standard_normal((8, 3))
    np.testing.assert_allclose(A.subspace_similarities(X, X), np.ones((3, 3)), rtol=0, atol=1e-12)
    wider = np.hstack([X, np.random.default_rng(seed + 1).standard_normal((8, 2))])
    assert A.subspace_similarity(X, wider) == pytest.approx(1, abs=1e-12)


def test_similarity_of_orthogonal_spaces_is_0():
    X, Y = axes(0, 1) * [3, 2], axes(2, 3, 4) * [5, 4, 3]
    np.testing.assert_array_equal(A.subspace_similarities(X, Y), np.zeros((2, 3)))


def test_similarity_of_partly_overlapping_spaces_follows_the_order_of_directions():
    X = axes(0, 1) * [3, 2]
    shared_first, shared_last = axes(0, 2) * [3, 2], axes(2, 0) * [3, 2]
    np.testing.assert_allclose(A.subspace_similarities(X, shared_first), [[1, 1], [1, 1 / 2]])
    np.testing.assert_allclose(A.subspace_similarities(X, shared_last), [[0, 1], [0, 1 / 2]])
    np.testing.assert_allclose(A.subspace_similarities(shared_last, X), [[0, 0], [1, 1 / 2]])
    assert A.subspace_similarity(X, shared_last, 1, 2) == 1  # i, j count from 1
    assert A.subspace_similarity(X, shared_last, 2, 1) == 0
    assert A.subspace_similarity(X, shared_last) == A.subspace_similarity(X, shared_last, 2, 2)


def test_similarity_is_that_of_the_input_side():
    X, Y = np.outer(np.eye(4)[0], np.eye(5)[1]), np.outer(np.eye(4)[0], np.eye(5)[2])
    assert A.subspace_similarity(X, Y) == 1
    assert A.subspace_similarity(X.T, Y.T) == 0


@given(seeds)
@few
def test_delta_w_has_the_input_space_of_its_own_factor_a(seed):
    rng = np.random.default_rng(seed)
    factor_A, B = rng.standard_normal((9, 3)), rng.standard_normal((3, 7))
    delta = (factor_A @ B).astype(np.float32)
    phi = A.subspace_similarities(factor_A, delta)
    assert phi.shape == (3, 3)  # what rounding added to ΔW's rank is no direction
    assert phi[2, 2] == pytest.approx(1, abs=1e-6)


@given(seeds)
@few
def test_similarity_is_the_mean_squared_cosine_of_the_principal_angles(seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((9, 4)), rng.standard_normal((9, 3))
    U, V = np.linalg.svd(X)[0][:, :2], np.linalg.svd(Y)[0][:, :3]
    expected = np.mean(np.cos(A.principal_angles(U, V)) ** 2)
    assert A.subspace_similarity(X, Y, 2, 3) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("i", "j"), [(1, 1), (2, 5), (5, 2), (4, 4)])
def test_random_subspaces_are_as_similar_as_chance_similarity_says(i, j):
    rng, d = np.random.default_rng(5), 16
    draws = [
        A.subspace_similarity(rng.standard_normal((d, i)), rng.standard_normal((d, j)))
        for _ in range(2000)
    ]
    error = np.std(draws) / math.sqrt(len(draws))
    assert A.chance_similarity(i, j, d) == max(i, j) / d
    assert abs(np.mean(draws) - A.chance_similarity(i, j, d)) < 3 * error


def test_a_weak_direction_is_a_direction_and_a_rounding_error_is_none():
    X = matrix([1, 1e-4, 1e-9], 6, 6)
    assert A.subspace_similarities(X, X).shape == (2, 2)


def test_a_whole_space_is_similar_to_everything():
    assert A.chance_similarity(3, 8, 8) == 1
    X, everything = axes(2, 4) * [2, 1], np.eye(6)
    assert A.subspace_similarity(X, everything) == pytest.approx(1, abs=1e-15)


def amplify(W, delta, r, seed=0, draws=20):
    return A.amplification(W, delta, r, np.random.default_rng(seed), draws)


def test_amplification_of_a_direction_that_w_has_but_does_not_stress():
    W, delta = np.diag([8.0, 4, 2, 1]), np.diag([0.0, 0, 6, 0])
    found = amplify(W, delta, 1)
    assert (found.delta_norm, found.projected, found.own, found.factor) == (6, 2, 8, 3)
    two = amplify(W, np.diag([0.0, 0, 4, 3]), 2)
    assert two.delta_norm == 5
    assert two.projected == pytest.approx(math.sqrt(5), rel=1e-14)
    assert two.own == pytest.approx(math.sqrt(80), rel=1e-14)
    assert two.factor == pytest.approx(math.sqrt(5), rel=1e-14)


def test_amplification_projects_on_the_top_r_directions_but_measures_all_of_delta():
    found = amplify(np.diag([8.0, 4, 2, 1]), np.diag([0.0, 0, 4, 3]), 1)
    assert (found.delta_norm, found.projected, found.factor) == (5, 2, 2.5)


def test_amplification_of_something_new_to_w_is_infinite():
    delta = np.zeros((4, 4))
    delta[0, 1] = 3  # W maps input 0 to output 0 alone
    found = amplify(np.diag([8.0, 4, 2, 1]), delta, 1)
    assert (found.projected, found.factor) == (0, math.inf)


@given(seeds)
@few
def test_a_delta_that_is_a_multiple_of_w_amplifies_by_that_multiple(seed):
    W = np.random.default_rng(seed).standard_normal((4, 6))
    found = amplify(W, -2.5 * W, 4, seed)
    assert found.factor == pytest.approx(2.5, rel=1e-12)
    assert found.projected == pytest.approx(found.own, rel=1e-12)
    assert found.random < found.own


@given(seeds)
@few
def test_amplification_does_not_see_rotation_or_transposition(seed):
    rng = np.random.default_rng(seed)
    W, delta = rng.standard_normal((5, 7)), matrix([3, 2, 1], 5, 7, seed)
    left, right = orthonormal(5, 5, seed + 2), orthonormal(7, 7, seed + 3)
    found = dataclasses.astuple(amplify(W, delta, 2))
    for same in (
        amplify(left @ W @ right, left @ delta @ right, 2),
        amplify(W.T, delta.T, 2),  # the layout of the paper
    ):
        for name, value in zip(("delta_norm", "projected", "own"), found, strict=False):
            assert getattr(same, name) == pytest.approx(value, rel=1e-11)
        assert same.factor == pytest.approx(found[-1], rel=1e-11)


def test_random_directions_find_the_share_of_w_that_chance_gives():
    W = matrix([9, 3, 1], 6, 10)
    one_by_one = [amplify(W, W, 3, seed, draws=1).random ** 2 for seed in range(1000)]
    error = np.std(one_by_one) / math.sqrt(len(one_by_one))
    assert abs(np.mean(one_by_one) - 3 * 3 * 91 / (6 * 10)) < 3 * error  # r² ‖W‖² / (d_in d_out)


def test_random_directions_that_fill_the_space_find_all_of_w():
    W = np.diag([3.0, 4])
    assert amplify(W, W, 2).random == pytest.approx(5, rel=1e-14)


def test_random_is_the_mean_of_its_draws_and_repeats_with_its_seed():
    W, rng = matrix([9, 3, 1], 6, 10), np.random.default_rng(8)
    singles = [A.amplification(W, W, 2, rng, draws=1).random for _ in range(3)]
    assert amplify(W, W, 2, seed=8, draws=3).random == pytest.approx(np.mean(singles), rel=1e-14)
    assert amplify(W, W, 2, seed=8) == amplify(W, W, 2, seed=8)


@pytest.mark.parametrize("count", [1, 3])
def test_planted_intruders_are_counted_exactly(count):
    U, V = orthonormal(20, 15, 0), orthonormal(24, 15, 1)
    W = (U[:, :12] * np.linspace(5, 1, 12)) @ V[:, :12].T
    planted = (U[:, 12 : 12 + count] * [50, 40, 30][:count]) @ V[:, 12 : 12 + count].T
    assert A.intruder_dimensions(W, W + planted) == count
    assert A.intruder_dimensions(W, planted + W, k=1) == 1


def test_an_intruder_may_be_a_mixture_of_all_of_w_s_directions():
    d = 16
    W = matrix([2.0**-i for i in range(d)], d, d)
    V = np.linalg.svd(W)[2].T
    mixture = V.sum(axis=1) / math.sqrt(d)  # |cosine| 1/4 with each
    u = orthonormal(d, 1, 7)[:, 0]
    assert A.intruder_dimensions(W, W + 50 * np.outer(u, mixture)) == 1


def test_intruders_are_sought_on_the_output_side():
    U, V = orthonormal(10, 5, 0), orthonormal(12, 4, 1)
    W = (U[:, :4] * [4, 3, 2, 1]) @ V.T
    W_after = W + 50 * np.outer(U[:, 4], V[:, 0])  # a new input direction, an old output direction
    assert A.intruder_dimensions(W, W_after) == 0
    assert A.intruder_dimensions(W.T, W_after.T) == 1


def test_only_the_top_k_directions_can_be_intruders():
    U, V = orthonormal(10, 5, 0), orthonormal(10, 5, 1)
    W = (U[:, :4] * [9, 8, 7, 6]) @ V[:, :4].T
    W_after = W + 6.5 * np.outer(U[:, 4], V[:, 4])  # the fourth of five
    assert [A.intruder_dimensions(W, W_after, k) for k in (1, 3, 4, 10)] == [0, 0, 1, 1]


def test_a_weak_direction_of_w_that_grew_is_no_intruder():
    U, V = orthonormal(10, 4, 0), orthonormal(10, 4, 1)
    W, W_after = (U * [4, 3, 2, 1]) @ V.T, (U * [4, 3, 2, 100]) @ V.T
    assert A.intruder_dimensions(W, W_after, k=1) == 0


def test_epsilon_is_the_cosine_below_which_a_direction_is_new():
    W = np.diag([3.0, 2, 0, 0])
    between = np.outer([1, 0, 0, 0], [1, -1, 0, 0])  # |cosine| 0.707 with two directions of W
    assert A.intruder_dimensions(W, between, k=1) == 0
    assert A.intruder_dimensions(W, between, k=1, epsilon=0.7) == 0
    assert A.intruder_dimensions(W, between, k=1, epsilon=0.71) == 1


@given(seeds)
@few
def test_a_small_change_brings_no_intruders(seed):
    W = matrix([2.0**-i for i in range(12)], 12, 14, seed)
    noise = np.random.default_rng(seed + 9).standard_normal((12, 14))
    assert A.intruder_dimensions(W, W) == 0
    assert A.intruder_dimensions(W, -3 * W) == 0
    assert A.intruder_dimensions(W, W + 1e-6 * noise) == 0


def exact_best_cosine(d: int) -> float:
    """E max|x_k| / E ‖x‖ for normal x: its direction and its length are independent."""
    t = (np.arange(20_000) + 0.5) * 5e-4
    largest = sum(1 - math.erf(v / math.sqrt(2)) ** d for v in t) * 5e-4
    return largest / (math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)))


@pytest.mark.parametrize(("d", "rounded"), [(2, 0.90), (16, 0.53), (64, 0.33), (768, 0.12)])
def test_chance_best_cosine_is_what_probability_theory_says(d, rounded):
    found = A.chance_best_cosine(d, np.random.default_rng(6), draws=4000)
    exact = exact_best_cosine(d)
    assert round(exact, 2) == rounded
    assert found == pytest.approx(exact, abs=0.1 * exact / math.sqrt(4000) * 3)


def test_chance_best_cosine_in_one_and_two_dimensions():
    assert A.chance_best_cosine(1, np.random.default_rng(0)) == 1
    assert exact_best_cosine(2) == pytest.approx(2 * math.sqrt(2) / math.pi, abs=1e-6)


M32 = np.random.default_rng(11).standard_normal((7, 5)).astype(np.float32)
N32 = np.random.default_rng(12).standard_normal((7, 5)).astype(np.float32)
ON_ONE = {
    "singular_values": A.singular_values,
    "effective_rank": A.effective_rank,
    "stable_rank": A.stable_rank,
    "k90": A.k90,
    "truncate": lambda M: A.truncate(M, 2),
    "eckart_young_tail": lambda M: A.eckart_young_tail(M, 2),
}
ON_TWO = {
    "relative_norm": A.relative_norm,
    "principal_angles": lambda M, N: A.principal_angles(M[:, :2], N[:, :3]),
    "subspace_similarities": A.subspace_similarities,
    "subspace_similarity": lambda M, N: A.subspace_similarity(M, N, 2, 3),
    "amplification": lambda M, N: dataclasses.astuple(amplify(M, N, 2)),
    "intruder_dimensions": lambda M, N: A.intruder_dimensions(M, N, k=3),
}


@pytest.mark.parametrize("name", [*ON_ONE, *ON_TWO])
def test_float32_is_computed_as_float64(name):
    def answer(dtype):
        inputs = [M32.astype(dtype), N32.astype(dtype)]
        return ON_ONE[name](inputs[0]) if name in ON_ONE else ON_TWO[name](*inputs)

    found = answer(np.float32)
    np.testing.assert_array_equal(found, answer(np.float64))
    if isinstance(found, np.ndarray):
        assert found.dtype == np.float64
    else:
        parts = found if isinstance(found, tuple) else (found,)
        assert {type(part) for part in parts} <= {float, int}


@pytest.mark.parametrize("f", ON_ONE.values(), ids=ON_ONE)
def test_one_matrix_of_finite_numbers_is_needed(f):
    for shape in ((4,), (2, 3, 4), (), (0, 3)):
        with pytest.raises(ValueError, match="expected a matrix"):
            f(np.ones(shape))
    with pytest.raises(ValueError, match="inf or nan"):
        f(np.array([[1, 2], [3, np.nan]]))


@pytest.mark.parametrize(
    "f",
    [A.relative_norm, lambda M, N: amplify(M, N, 1), lambda M, N: A.intruder_dimensions(M, N, 1)],
)
def test_two_matrices_must_have_the_same_shape(f):
    with pytest.raises(ValueError, match=r"same \(d_in, d_out\): got \(7, 5\) and \(7, 4\)"):
        f(M32, N32[:, :4])
    with pytest.raises(ValueError, match="expected a matrix"):
        f(M32, N32[0])


@pytest.mark.parametrize("f", [A.principal_angles, A.subspace_similarities, A.subspace_similarity])
def test_subspaces_must_lie_in_the_same_space(f):
    f(M32, N32[:, :4])
    with pytest.raises(ValueError, match=r"same d_in: got \(7, 5\) and \(6, 5\)"):
        f(M32, N32[:6])


@pytest.mark.parametrize("name", sorted(ON_TWO.keys() - {"relative_norm"}))
def test_a_zero_matrix_has_no_directions(name):
    with pytest.raises(ValueError, match="zero matrix has no directions; .* B = 0"):
        ON_TWO[name](M32, np.zeros_like(M32))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: A.truncate(M32, 6), "k must lie between 0 and 5 .* got 6"),
        (lambda: A.truncate(M32, -1), "k must lie between 0 and 5"),
        (lambda: A.eckart_young_tail(M32, 6), "k must lie between 0 and 5"),
        (lambda: A.eckart_young_tail(M32, -1), "k must lie between 0 and 5"),
        (lambda: A.subspace_similarity(M32, N32, 0, 1), "i must lie between 1 and 5"),
        (lambda: A.subspace_similarity(M32, N32[:, :3], 5, 4), "j must lie between 1 and 3"),
        (lambda: A.chance_similarity(0, 1, 4), "i must lie between 1 and 4"),
        (lambda: A.chance_similarity(1, 5, 4), "j must lie between 1 and 4"),
        (lambda: amplify(M32, N32, 0), "r must lie between 1 and 5"),
        (lambda: amplify(M32, np.outer(M32[:, 0], N32[0]), 2), "r must lie between 1 and 1"),
        (lambda: A.intruder_dimensions(M32, N32), "k must lie between 1 and 5 .* got 10"),
        (lambda: A.intruder_dimensions(M32, N32, k=0), "k must lie between 1 and 5"),
    ],
)
def test_counts_outside_their_range_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
