"""Analysis of what is not a matrix, or of sizes that are none, raises one sentence."""

import dataclasses

import numpy as np
import pytest
from matrices import amplify

from minilora.analysis.counting import (
    ARCHITECTURES,
    checkpoint_bytes,
    lora_parameters,
    training_bytes,
)
from minilora.analysis.spectrum import (
    chance_best_cosine,
    eckart_young_tail,
    effective_rank,
    intruder_dimensions,
    intruder_part,
    k90,
    relative_norm,
    singular_values,
    stable_rank,
    truncate,
)
from minilora.analysis.subspaces import (
    amplification,
    chance_similarity,
    subspace_similarities,
    subspace_similarity,
)

RNG, GPT2 = np.random.default_rng(0), ARCHITECTURES["gpt2"]
M32 = np.random.default_rng(11).standard_normal((7, 5)).astype(np.float32)
N32 = np.random.default_rng(12).standard_normal((7, 5)).astype(np.float32)
ON_ONE = {
    "singular_values": singular_values,
    "effective_rank": effective_rank,
    "stable_rank": stable_rank,
    "k90": k90,
    "truncate": lambda M: truncate(M, 2),
    "eckart_young_tail": lambda M: eckart_young_tail(M, 2),
}
ON_TWO = {
    "relative_norm": relative_norm,
    "subspace_similarities": subspace_similarities,
    "subspace_similarity": subspace_similarity,
    "amplification": lambda M, N: dataclasses.astuple(amplify(M, N, 2)),
    "intruder_dimensions": lambda M, N: intruder_dimensions(M, N, k=3),
    "intruder_part": lambda M, N: intruder_part(M, N, k=3, epsilon=1.0),
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
    with pytest.raises(ValueError, match="rows of several lengths"):
        f([[1, 2], [3]])
    for M in (None, "W", (row for row in M32), M32 * 1j, [[True]], [["a"]]):
        with pytest.raises(ValueError, match="expected a matrix of real numbers, got an array of"):
            f(M)


@pytest.mark.parametrize(
    "f",
    [relative_norm, lambda M, N: amplify(M, N, 1), lambda M, N: intruder_dimensions(M, N, 1)],
)
def test_two_matrices_must_have_the_same_shape(f):
    with pytest.raises(ValueError, match=r"same \(d_in, d_out\): got \(7, 5\) and \(7, 4\)"):
        f(M32, N32[:, :4])
    with pytest.raises(ValueError, match="expected a matrix"):
        f(M32, N32[0])


@pytest.mark.parametrize("f", [subspace_similarities, subspace_similarity])
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
        (lambda: truncate(M32, 6), "k is at most 5 for these sizes, got 6"),
        (lambda: truncate(M32, -1), "k must be a whole number of at least 0, got -1"),
        (lambda: truncate(M32, 2.0), "k must be a whole number of at least 0, got 2.0"),
        (lambda: truncate(M32, True), "k must be a whole number of at least 0, got True"),
        (lambda: truncate(M32, None), "k must be a whole number of at least 0, got None"),
        (lambda: eckart_young_tail(M32, 6), "k is at most 5"),
        (lambda: eckart_young_tail(M32, -1), "k must be a whole number of at least 0"),
        (lambda: chance_similarity(0, 1, 4), "i must be a whole number of at least 1, got 0"),
        (lambda: chance_similarity(1, 5, 4), "j is at most 4"),
        (lambda: chance_similarity(1, 1, 2.5), "d must be a whole number of at least 1, got 2.5"),
        (lambda: amplify(M32, N32, 0), "r must be a whole number of at least 1, got 0"),
        (lambda: amplify(M32, np.outer(M32[:, 0], N32[0]), 2), "r is at most 1"),
        (lambda: intruder_dimensions(M32, N32), "k is at most 5 .* got 10"),
        (lambda: intruder_part(M32, N32), "k is at most 5 .* got 10"),
        (lambda: intruder_dimensions(M32, N32, k=0), "k must be a whole number of at least 1"),
        (
            lambda: intruder_dimensions(M32, N32, 1, np.nan),
            "epsilon must be a number from 0 to 1",
        ),
        (lambda: amplification(M32, N32, 1, rng=0), r"rng must be np.random.default_rng\(seed\)"),
        (lambda: chance_best_cosine(8, None), r"rng must be np.random.default_rng\(seed\)"),
        (lambda: chance_best_cosine(0, RNG), "d must be a whole number of at least 1, got 0"),
        (lambda: chance_best_cosine(8, RNG, 0), "draws must be a whole number of at least 1"),
        (lambda: lora_parameters(GPT2, 1.5, "q_proj"), "r must be a whole number .* got 1.5"),
        (lambda: lora_parameters(GPT2, 4, []), "name at least one target"),
        (lambda: training_bytes(-1, 5), "frozen must be a whole number of at least 0, got -1"),
        (
            lambda: training_bytes(10, 5, np.nan),
            "frozen_bits must be a positive number",
        ),
        (lambda: checkpoint_bytes(-1), "numbers must be a whole number of at least 0, got -1"),
    ],
)
def test_sizes_and_options_that_cannot_be_meant_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
