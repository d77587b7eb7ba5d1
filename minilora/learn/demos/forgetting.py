"""What is forgotten, and the rank of what is learned: words-tiny learns to reverse words."""

from __future__ import annotations

import numpy as np

import minilora as ml
from minilora.analysis import spectrum
from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.learn.demos import learners as S
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.learners import near
from minilora.lora import lora_layers
from minilora.nn import Module
from minilora.tensor import no_grad
from minilora.transformer import Transformer

GENTLE, USUAL = 1e-3, 1e-2  # LoRA's rates here; full fine-tuning's are a tenth of them


def _base() -> Transformer:
    return ml.load_model("words-tiny")


def _new_loss(model: Transformer) -> float:
    return S.cross_entropy_of(model, S.new_words(np.random.default_rng(99)))


def _old_loss(model: Transformer) -> float:
    """In times that of the base."""
    batch = S.old_words(np.random.default_rng(99))
    return S.cross_entropy_of(model, batch) / S.cross_entropy_of(_base(), batch)


def _changed_entries(model: Module) -> int:
    """Of every W that has an adapter beside it."""
    weights = dict(_base().named_parameters())
    return sum(
        int((layer.base.weight.data != weights[f"{path}.weight"].data).sum())
        for path, layer in lora_layers(model).items()
    )


def _ranks(model: Transformer) -> list[int]:
    """Of every ΔW, above what rounding of float32 weights leaves."""
    return [len(spectrum.directions(D)[0].T) for D in delta_weights(_base(), model).values()]


@demo(
    forgetting=lambda m: (
        m["loss on new words, likewise"] < 70
        and m["loss on the words trained on, per cent of before"] < 70
        and m["loss on the old tasks, in times that before"] > 10
    ),
    overfitting=lambda m: (
        m["loss on the words trained on, per cent of before"] < 70
        and m["loss on new words, likewise"] > 100
    ),
    underfitting=lambda m: m["loss on the words trained on, per cent of before"] > 90,
    old_is_fine=lambda m: m["loss on the old tasks, in times that before"] < 1.5,
)
def old_and_new_loss() -> Measured:
    """Train words-tiny with LoRA to reverse words; measure it on these, on others, on old tasks."""
    base, model = _base(), S.learned_to_reverse("lora", USUAL)
    seen = S.new_words(np.random.default_rng((0, 0)), rows=16)  # the batch of its first step
    return {
        "loss on the words trained on, per cent of before": 100
        * S.cross_entropy_of(model, seen)
        / S.cross_entropy_of(base, seen),
        "loss on new words, likewise": 100 * _new_loss(model) / _new_loss(base),
        "loss on the old tasks, in times that before": _old_loss(model),
    }


@demo(
    bit_for_bit=lambda m: (
        m["logits with the adapter off differ from the base's by"] == 0
        and m["logits after merging and unmerging, likewise"] == 0
        and m["old loss with it on, in times the base's"] > 10
        and near(m["old loss with it off, likewise"], 1)
    ),
    nearly=lambda m: 0 < m["logits with the adapter off differ from the base's by"] < 0.1,
    stays_forgotten=lambda m: m["old loss with it off, likewise"] > 10,
    by_unmerging=lambda m: (
        m["logits after merging and unmerging, likewise"] == 0
        and m["logits with the adapter off differ from the base's by"] > 0
    ),
)
def adapter_off() -> Measured:
    """Train an adapter until old tasks suffer, switch it off, and compare with the base."""
    model, base = S.copy_of(S.learned_to_reverse("lora", USUAL)), _base()
    ids = S.old_words(np.random.default_rng(1))[0]

    def difference() -> float:
        with no_grad():
            return float(np.abs(model(ids).data - base(ids).data).max())

    on = _old_loss(model)
    with ml.disable_adapter(model):
        off, by = _old_loss(model), difference()
    ml.merge_adapter(model)
    ml.unmerge_adapter(model)
    with ml.disable_adapter(model):
        unmerged = difference()
    return {
        "old loss with it on, in times the base's": on,
        "old loss with it off, likewise": off,
        "logits with the adapter off differ from the base's by": by,
        "logits after merging and unmerging, likewise": unmerged,
    }


@demo(
    acts_on_all=lambda m: (
        m["old loss, in times the base's"] > 10
        and m["entries of W that changed"] == 0
        and m["largest change of the old logits"] > 1
        and m["rank of ΔW, highest"] == 2
    ),
    sorted_by_input=lambda m: m["largest change of the old logits"] < 0.1,
    too_few_directions=lambda m: (
        m["rank of ΔW, highest"] <= 2 and m["old loss, in times the base's"] < 1.5
    ),
    w_drifts=lambda m: (
        m["old loss, in times the base's"] > 10 and m["entries of W that changed"] > 0
    ),
)
def adapter_on() -> Measured:
    """Train an adapter of rank 2 on words to reverse, and measure the old tasks with it active."""
    model, base = S.learned_to_reverse("lora", USUAL), _base()
    ids = S.old_words(np.random.default_rng(1))[0]
    with no_grad():
        change = float(np.abs(model(ids).data - base(ids).data).max())
    return {
        "old loss, in times the base's": _old_loss(model),
        "largest change of the old logits": change,
        "entries of W that changed": _changed_entries(model),
        "rank of ΔW, highest": max(_ranks(model)),
    }


def _most(m: Measured, change: str) -> bool:
    """Does this change alone make the old loss many times what it was, and more than the others?"""
    others = [value for name, value in m.items() if name not in ("as it was", change)]
    return m[change] > 5 * m["as it was"] and all(m[change] > 5 * value for value in others)


@demo(
    rate=lambda m: _most(m, "rate × 10"),
    rank=lambda m: _most(m, "r × 4 at the same s"),
    steps=lambda m: _most(m, "twice the steps"),
    nothing=lambda m: all(value < 1.1 for value in m.values()),
)
def what_makes_it_forget() -> Measured:
    """Train an adapter gently, then with one thing changed; the old loss, in times the base's."""

    def loss(lr: float = GENTLE, r: int = 2, steps: int = 6) -> float:
        return _old_loss(S.learned_to_reverse("lora", lr, r, steps))

    return {
        "as it was": loss(),
        "rate × 10": loss(lr=10 * GENTLE),
        "r × 4 at the same s": loss(r=8),
        "twice the steps": loss(steps=12),
    }


@demo(
    rates_decide=lambda m: (
        m["old loss, full gently, likewise"] < m["old loss, LoRA, in times the base's"] / 2
        and m["old loss, LoRA, in times the base's"] < m["old loss, full as usual, likewise"] / 2
    ),
    lora_less=lambda m: (
        m["old loss, LoRA, in times the base's"] < m["old loss, full gently, likewise"]
        and m["old loss, LoRA, in times the base's"] < m["old loss, full as usual, likewise"]
    ),
    lora_more=lambda m: (
        m["old loss, LoRA, in times the base's"] > m["old loss, full as usual, likewise"]
        and m["old loss, LoRA, in times the base's"] > m["old loss, full gently, likewise"]
    ),
    task_decides=lambda m: (
        m["old loss, full as usual, likewise"]
        < 2 * m["old loss, full gently, likewise"]
        < 4 * m["old loss, full as usual, likewise"]
    ),
)
def who_forgets_less() -> Measured:
    """Train words-tiny with LoRA, and in full at two rates, and measure the old tasks."""
    return {
        "old loss, LoRA, in times the base's": _old_loss(S.learned_to_reverse("lora", USUAL)),
        "old loss, full gently, likewise": _old_loss(S.learned_to_reverse("full", GENTLE / 10)),
        "old loss, full as usual, likewise": _old_loss(S.learned_to_reverse("full", USUAL / 10)),
    }


@demo(
    full_rank=lambda m: (
        m["rank of full's ΔW, lowest"] > 0.9 * m["least side of W"]
        and m["effective rank of full's ΔW, mean"] > 4 * m["rank of LoRA's ΔW, highest"]
    ),
    as_lora=lambda m: m["rank of full's ΔW, lowest"] <= 2 * m["rank of LoRA's ΔW, highest"],
    one_a_step=lambda m: m["rank of full's ΔW, lowest"] == m["steps"],
    few_entries=lambda m: m["share of W's entries that full changed"] < 0.5,
)
def rank_of_full_update() -> Measured:
    """Train words-tiny in full and with LoRA for 12 steps, and take the rank of every ΔW."""
    base, full = _base(), S.learned_to_reverse("full", USUAL / 10)
    W, deltas = weight_matrices(base), delta_weights(base, full)
    return {
        "steps": 12,
        "least side of W": min(min(M.shape) for M in W.values()),
        "rank of full's ΔW, lowest": min(_ranks(full)),
        "effective rank of full's ΔW, mean": float(
            np.mean([spectrum.effective_rank(D) for D in deltas.values()])
        ),
        "rank of LoRA's ΔW, highest": max(_ranks(S.learned_to_reverse("lora", USUAL))),
        "share of W's entries that full changed": float(
            np.mean([np.mean(D != 0) for D in deltas.values()])
        ),
    }


@demo(
    one_exists=lambda m: (
        m["% of the loss left, LoRA of rank 2"] < 60
        and m["% of the loss left, full cut to rank 2"] > 80
        and m["% of the loss left, full"] < 40
        and m["rank of full's ΔW"] == m["rank of W"] == 24
    ),
    full_is_low=lambda m: m["rank of full's ΔW"] <= 2 * 2,
    can_be_cut=lambda m: (
        m["% of the loss left, full cut to rank 2"] < 1.1 * m["% of the loss left, LoRA of rank 2"]
    ),
    w_is_low=lambda m: m["rank of W"] <= 2 * 2,
)
def cut_after_training() -> Measured:
    """Train a layer with inputs of unequal strength in full, with AdamW; cut its ΔW to rank 2, and
    train LoRA of rank 2 beside it."""
    t = S.teacher(2, samples=64)
    x = t.x * np.geomspace(1, 0.1, 24)
    y = x @ (t.W + t.delta)
    y += 0.3 * y.std() * np.random.default_rng(0).standard_normal(y.shape)
    full, lora = S.one_layer(t.W), S.with_lora(t.W, 2)
    for model in (full, lora):
        S.fit(model, x, y, steps=200, lr=1e-2)
    delta = full[0].weight.data - t.W
    cut = S.one_layer(t.W + spectrum.truncate(delta, 2))
    before = S.loss_of(S.one_layer(t.W), x, y)
    return {
        "% of the loss left, full": 100 * S.loss_of(full, x, y) / before,
        "% of the loss left, LoRA of rank 2": 100 * S.loss_of(lora, x, y) / before,
        "% of the loss left, full cut to rank 2": 100 * S.loss_of(cut, x, y) / before,
        "rank of full's ΔW": int(np.linalg.matrix_rank(delta)),
        "rank of W": int(np.linalg.matrix_rank(t.W)),
    }


def _matrix(sigma: tuple[float, ...], n: int = 8, m: int = 6) -> np.ndarray:
    """A matrix (n, m) with these singular values."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((d, len(sigma))))[0] for d in (n, m))
    return (U * sigma) @ V.T


@demo(
    squares=lambda m: near(m["least squared error that training finds"], 2**2 + 1**2),
    no_squares=lambda m: near(m["least squared error that training finds"], 2 + 1),
    what_is_kept=lambda m: near(m["least squared error that training finds"], 6**2 + 3**2),
    next_one=lambda m: near(m["least squared error that training finds"], 2**2),
)
def error_of_the_best_rank_2() -> Measured:
    """Train A B of rank 2 towards a matrix with the singular values 6, 3, 2, 1."""
    M = _matrix((6, 3, 2, 1))
    model = S.with_lora(np.zeros(M.shape), r=2)
    losses = S.fit(model, np.eye(len(M)), M, steps=400, lr=3e-2)
    return {"least squared error that training finds": losses[-1] * M.size}


@demo(
    concentrated=lambda m: (
        m["rank"] == 12
        and m["effective rank"] < 8
        and m["share of ‖ΔW‖² in 3 directions"] > 0.9
        and m["weakest of 12 singular values, share of the strongest"] > 1e-4
        and m["columns of A that trained"] == 12
    ),
    idle_columns=lambda m: m["columns of A that trained"] < m["effective rank"] + 1,
    rounding=lambda m: m["weakest of 12 singular values, share of the strongest"] < 1e-6,
    all_used=lambda m: m["effective rank"] > 0.9 * m["rank"],
)
def strength_of_directions() -> Measured:
    """Let LoRA of rank 12 learn a change of rank 3 from noisy samples, and take ΔW apart."""
    t = S.teacher(3, samples=96, noise=0.1)
    model = S.with_lora(t.W, 12)
    before = S.adapter_of(model).A.data.copy()
    S.fit(model, t.x, t.y, steps=150, lr=1e-2)
    delta = ml.get_delta_weight(model, "0")
    sigma = spectrum.singular_values(delta)
    return {
        "rank": int(np.linalg.matrix_rank(delta)),
        "effective rank": spectrum.effective_rank(delta),
        "share of ‖ΔW‖² in 3 directions": float(np.sum(sigma[:3] ** 2) / np.sum(sigma**2)),
        "weakest of 12 singular values, share of the strongest": float(sigma[11] / sigma[0]),
        "columns of A that trained": int(
            (np.abs(S.adapter_of(model).A.data - before) > 1e-3).any(axis=0).sum()
        ),
    }


@demo(
    new_and_strong=lambda m: (
        m["intruders after a strong new direction"] == 1
        and m["after a weak one"] == m["after an old one was doubled"] == 0
        and m["after an old one was taken out"] == 0
    ),
    doubled=lambda m: m["after an old one was doubled"] > 0,
    deleted=lambda m: m["after an old one was taken out"] > 0,
    any_new=lambda m: m["after a weak one"] > 0,
)
def what_intrudes() -> Measured:
    """Change one direction of a matrix of 128 dimensions in four ways, and count intruders."""
    d, rng = 128, np.random.default_rng(0)
    W = rng.standard_normal((d, d)) / np.sqrt(d)
    U, sigma, Vt = np.linalg.svd(W)
    new = np.linalg.qr(rng.standard_normal((d, 2)))[0]
    direction, own = np.outer(new[:, 0], new[:, 1]), np.outer(U[:, 0], Vt[0])
    changed = {
        "intruders after a strong new direction": W + 3 * sigma[0] * direction,
        "after a weak one": W + 0.05 * sigma[0] * direction,
        "after an old one was doubled": W + sigma[0] * own,
        "after an old one was taken out": W - sigma[0] * own,
    }
    return {name: spectrum.intruder_dimensions(W, M) for name, M in changed.items()}


_MEASURES = ("rank", "stable rank", "k90", "‖ΔW‖²")
_VALUES = {"A": 34 / 25, "B": 3, "C": 4, "D": 34}


def _has_values(m: Measured, pairing: str) -> bool:
    return all(near(m[_MEASURES[int(p[0]) - 1]], _VALUES[p[1]]) for p in pairing.split())


@demo(
    right=lambda m: _has_values(m, "1C 2A 3B 4D"),
    stable_as_count=lambda m: _has_values(m, "1C 2B 3A 4D"),
    rank_as_energy=lambda m: _has_values(m, "1D 2A 3B 4C"),
    rank_as_k90=lambda m: _has_values(m, "1B 2A 3C 4D"),
)
def four_measures() -> Measured:
    """Make a matrix with the singular values 5, 2, 2, 1, and measure it."""
    M = _matrix((5, 2, 2, 1))
    found = (
        np.linalg.matrix_rank(M), spectrum.stable_rank(M), spectrum.k90(M), np.sum(M**2),
    )  # fmt: skip
    return {name: float(value) for name, value in zip(_MEASURES, found, strict=True)}


@demo(
    fewer_larger=lambda m: _compares(m, fewer=True, larger=True),
    fewer_smaller=lambda m: _compares(m, fewer=True, larger=False),
    more_larger=lambda m: _compares(m, fewer=False, larger=True),
    more_smaller=lambda m: _compares(m, fewer=False, larger=False),
)
def few_strong_directions() -> Measured:
    """Train words-tiny with LoRA and in full to a like loss, and compare every ΔW with its W."""
    base, found = _base(), {}
    W = weight_matrices(base)
    models = {
        "LoRA": S.learned_to_reverse("lora", USUAL),
        "full": S.learned_to_reverse("full", USUAL / 10),
    }
    for name, model in models.items():
        deltas = delta_weights(base, model)
        sizes = [spectrum.relative_norm(D, W[path]) for path, D in deltas.items()]
        found[f"effective rank of ΔW, {name}"] = float(
            np.mean([spectrum.effective_rank(D) for D in deltas.values()])
        )
        found[f"‖ΔW‖ / ‖W‖, {name}"] = float(np.mean(sizes))
    new = {name: _new_loss(model) for name, model in models.items()}
    return found | {"new loss, LoRA's in times full's": new["LoRA"] / new["full"]}


def _compares(m: Measured, fewer: bool, larger: bool) -> bool:
    """Has LoRA's ΔW, compared with full's, so many directions and such a length?"""
    n, n_full = m["effective rank of ΔW, LoRA"], m["effective rank of ΔW, full"]
    length, length_full = m["‖ΔW‖ / ‖W‖, LoRA"], m["‖ΔW‖ / ‖W‖, full"]
    return (
        0.5 < m["new loss, LoRA's in times full's"] < 2
        and (n < n_full / 2 if fewer else n_full < n / 2)
        and (length > 1.3 * length_full if larger else length < 0.7 * length_full)
    )


@demo(
    sum_of_both=lambda m: m["rank of all that was merged"] == m["rank of the first"] + m["r"],
    as_before=lambda m: m["rank of all that was merged"] == m["rank of the first"],
    full=lambda m: m["rank of all that was merged"] == m["least side of W"],
    second_is_idle=lambda m: m["loss left after the second, per cent of the first's"] > 90,
)
def two_adapters_in_a_row() -> Measured:
    """Train an adapter of rank 2 for a change of rank 4, merge it, and do the same once more."""
    t = S.teacher(4)
    model, ranks, losses = S.with_lora(t.W, 2), [], []
    for _ in range(2):
        losses.append(S.fit(model, t.x, t.y, steps=150, lr=2e-2)[-1])
        ml.merge_and_unload(model)
        ranks.append(int(np.linalg.matrix_rank(model[0].weight.data - t.W)))
        config = ml.LoraConfig(r=2, lora_alpha=2, target_modules=["0"])
        ml.add_adapter(model, config, rng=np.random.default_rng(2))
    return {
        "r": S.adapter_of(model).A.shape[1],
        "least side of W": min(t.W.shape),
        "rank of the first": ranks[0],
        "rank of all that was merged": ranks[1],
        "loss left after the second, per cent of the first's": 100 * losses[1] / losses[0],
    }
