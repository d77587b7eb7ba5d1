"""Claims that lesson 09 makes in its prose: about the shipped results, and about counts."""

from statistics import mean

import pytest

import minilora as ml
from minilora.plots import select
from minilora.studies.which_weights import PLACES

PLACED, METHODS, FEW, REWARDED = (
    ml.studies.shipped_rows(name)
    for name in ("which_weights", "methods", "how_few_numbers", "rl_rank_one")
)


def qualities(rows, **same):
    """The test results of all seeds."""
    return [row["test"] for row in select(rows, **same)]


def test_all_matrices_are_best_in_the_mean_and_q_alone_is_worst():
    for task, sign in (("code", 1), ("sort", -1)):
        order = sorted(PLACES, key=lambda p: sign * mean(qualities(PLACED, task=task, place=p)))
        assert (order[0], order[-1]) == ("all", "q")
    assert PLACED[0]["r"] == 9 * select(PLACED, task="code", place="all")[0]["r"]


def test_the_mlp_and_attention_change_places_between_the_tasks():
    mlp, attention = ({"place": place} for place in ("MLP", "q,k,v,o"))
    assert max(qualities(PLACED, task="code", **mlp)) < min(
        qualities(PLACED, task="code", **attention)
    )
    assert max(qualities(PLACED, task="sort", **mlp)) < min(
        qualities(PLACED, task="sort", **attention)
    )


def test_on_sorting_all_and_attention_are_half_a_word_in_a_hundred_apart():
    gap = min(qualities(PLACED, task="sort", place="all")) - max(
        qualities(PLACED, task="sort", place="q,k,v,o")
    )
    assert 100 * gap == pytest.approx(0.5, abs=0.1)


def test_on_code_three_variants_end_where_lora_does_and_two_higher():
    lora = qualities(METHODS, task="code", method="lora")
    for method in ("dora", "rslora", "lora+"):
        assert min(qualities(METHODS, task="code", method=method)) < max(lora)
    for method in ("pissa", "olora"):
        assert min(qualities(METHODS, task="code", method=method)) > max(lora)
    assert max(qualities(METHODS, task="code", method="last-block")) < min(lora)


def test_on_reversing_the_last_block_the_head_and_prompts_fail():
    for method in ("last-block", "head", "prompt"):
        assert max(qualities(METHODS, task="reverse", method=method)) < 0.1
    block, lora = (
        select(METHODS, task="reverse", method=m)[0]["trainable"] for m in ("last-block", "lora")
    )
    assert block > 5 * lora


def test_with_three_thousand_numbers_lora_of_one_matrix_is_as_good_as_the_special_methods():
    single = qualities(FEW, task="code", method="lora", place="down_proj", lr=3e-2)
    assert len(single) == 3
    for method, lr in (("vera", 0.1), ("lora-xs", 3e-2)):
        other = select(FEW, task="code", method=method, lr=lr)[-1]
        assert 2_500 < other["trainable"] < 3_100
        assert mean(single) < other["test"]


def test_an_adapter_of_rank_4_is_a_file_of_74_kilobytes():
    numbers = select(METHODS, task="code", method="lora")[0]["trainable"]
    assert round(4 * numbers / 1000) == 74


def test_from_rewards_rank_4_learns_as_much_as_full_and_forgets_more_and_rank_1_learns_less():
    full = qualities(REWARDED, method="full", lr=3e-4)
    rank_1, rank_4 = (qualities(REWARDED, r=r, lr=3e-3) for r in (1, 4))
    assert len(full) == len(rank_1) == len(rank_4) == 3
    assert max(rank_1) < min(full + rank_4)
    assert mean(rank_4) == pytest.approx(mean(full), abs=0.01)
    full_kept, rank_4_kept = (
        [row["old"] for row in select(REWARDED, r=r, lr=lr)] for r, lr in ((None, 3e-4), (4, 3e-3))
    )
    assert max(rank_4_kept) < min(full_kept)
    share = select(REWARDED, r=4)[0]["trainable"] / select(REWARDED, method="full")[0]["trainable"]
    assert round(100 * share) == 9


def test_the_curves_end_where_the_figures_description_says():
    for r, lr, new, old in ((None, 3e-4, 71, 63), (4, 3e-3, 71, 52), (1, 3e-3, 57, 68)):
        curves = [row["curve"] for row in select(REWARDED, r=r, lr=lr)]
        assert round(100 * mean(curve[0][1] for curve in curves)) == 24
        assert round(100 * mean(curve[-1][1] for curve in curves)) == new
        assert round(100 * mean(curve[-1][2] for curve in curves)) == old


def test_heads_of_5_classes_and_of_50_000_tokens_beside_lora():
    assert 12 * 2 * 8 * (768 + 768) == 294_912
    assert 768 * 5 == 3_840 and round(768 * 50_000 / 1e6) == 38


def loss_after(steps, method="lora", **options):
    run = ml.tune("code", method, steps=steps, **options)
    return run.task.test(run.model)


@pytest.mark.system  # only because they train, for some seconds
def test_after_100_steps_the_places_are_in_the_order_of_the_figure():
    losses = {}
    for place, targets in PLACES.items():
        r = select(PLACED, task="code", place=place)[0]["r"]
        options = {"target_modules": targets, "r": r, "lora_alpha": 2 * r}
        losses[place] = loss_after(100, lr=1e-2, **options)
    final = {place: mean(qualities(PLACED, task="code", place=place)) for place in PLACES}
    assert sorted(losses, key=losses.get) == sorted(final, key=final.get)
    assert all(losses[place] > final[place] for place in PLACES)


@pytest.mark.system
def test_after_60_steps_ia3_has_most_of_loras_gain_prompts_lag_and_the_last_block_is_ahead():
    base = select(METHODS, task="code")[0]["base_test"]
    gain = base - loss_after(60)
    shares = {
        method: (base - loss_after(60, method, lr=lr)) / gain
        for method, lr in (("ia3", 0.1), ("prompt", None), ("last-block", None))
    }
    assert shares["prompt"] < 0.7 < 0.8 < shares["ia3"] < 1 < shares["last-block"]
