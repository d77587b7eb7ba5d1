"""A demo proves its card by what LoRA does: where LoRA is broken, the proof fails."""

from unittest import mock

import numpy as np
import pytest

import minilora as ml
from minilora import functional as F
from minilora import lora
from minilora.learn.demos.demo import prove
from minilora.learn.demos.learners import learned_to_reverse
from minilora.learn.exam.cards import load_cards
from minilora.lora import LowRank
from minilora.optim import AdamW

CARDS = {card.id: card for card in load_cards()}
_delta, _init, _step = LowRank.delta, LowRank.__init__, AdamW.step
_set_adapter, _initial_factors = lora.set_adapter, lora.initial_factors


def _random_b(self, A, B, s, dropout=0.0):
    _init(self, A, np.random.default_rng(0).normal(0, 0.1, B.shape).astype(B.dtype), s, dropout)


def _both_zero(self, A, B, s, dropout=0.0):
    _init(self, 0 * A, 0 * B, s, dropout)


def _without_scale(self, A, B, s, dropout=0.0):
    _init(self, A, B, 1.0, dropout)


def _without_dropout(self, A, B, s, dropout=0.0):
    _init(self, A, B, s)


def _all_trains(model, name):
    _set_adapter(model, name)
    model.requires_grad_(True)


def _one_rank_more(W, r, *options):
    return _initial_factors(W, r + 1, *options)


def _one_rate(self):
    self._factors = None  # LoRA+'s
    _step(self)


def _subtract(model):
    for layer in lora.lora_layers(model).values():
        layer.base.weight.data = layer.base.weight.data - layer.delta_weight(layer.active)
        layer.unmerged_weight = None


BROKEN = {
    "merging adds nothing": (ml, "merge_adapter", lambda model: None),
    "unmerging subtracts": (ml, "unmerge_adapter", _subtract),
    "the adapter is ignored": (LowRank, "__call__", lambda self, x, W, b, rng: F.linear(x, W, b)),
    "the update is counted twice": (LowRank, "delta", lambda self, W: 2 * _delta(self, W)),
    "B does not start at zero": (LowRank, "__init__", _random_b),
    "A and B start at zero": (LowRank, "__init__", _both_zero),
    "s is 1 whatever alpha is": (LowRank, "__init__", _without_scale),
    "nothing is dropped": (LowRank, "__init__", _without_dropout),
    "nothing is frozen": (lora, "set_adapter", _all_trains),
    "A and B have one rank more": (lora, "initial_factors", _one_rank_more),
    "A and B have one rate": (AdamW, "step", _one_rate),
    "the optimizer does nothing": (AdamW, "step", lambda self: None),
}


@pytest.fixture
def nothing_learned_before():
    """No model that was trained before the fault, and none after it."""
    learned_to_reverse.cache_clear()
    yield
    learned_to_reverse.cache_clear()


@pytest.mark.usefixtures("nothing_learned_before")
@pytest.mark.parametrize(
    ("fault", "cards"),
    [
        ("the adapter is ignored", "what-is-lora equation-of-the-layer gradient-of-b"),
        ("the adapter is ignored", "each-row-its-own-adapter a-third-of-the-arithmetic"),
        ("the adapter is ignored", "switching-between-adapters an-adapter-needs-its-base"),
        ("the adapter is ignored", "a-loaded-adapter-that-does-not-train dora-can-be-merged"),
        ("the update is counted twice", "what-is-lora half-of-an-adapter"),
        ("the update is counted twice", "averaging-factors-is-not-averaging-updates"),
        ("B does not start at zero", "b-starts-at-zero first-step-moves-b-only"),
        ("A and B start at zero", "what-is-lora b-starts-at-zero b-still-zero gradient-of-b"),
        ("s is 1 whatever alpha is", "scale-from-alpha-and-rank rank-raised-alpha-kept"),
        ("s is 1 whatever alpha is", "what-lora-alpha-is alpha-rate-and-optimizer scale-of-rslora"),
        ("s is 1 whatever alpha is", "usually-twice-the-rank one-adapter-with-weight-one"),
        ("nothing is frozen", "more-numbers-fewer-train what-changes-in-training"),
        ("nothing is frozen", "count-of-a-whole-model twice-as-wide fewest-trained-first"),
        ("nothing is frozen", "a-new-head-must-be-trained-whole what-lora-takes-off-the-bill"),
        ("nothing is frozen", "activations-stay three-families a-third-of-the-arithmetic"),
        ("nothing is frozen", "ladder-from-most-to-least-memory where-full-fine-tuning-wins"),
        ("A and B have one rank more", "work-of-an-adapter-beside-w one-a-for-fused-q-k-v"),
        ("A and B have one rank more", "count-of-one-matrix share-of-a-square-matrix"),
        ("A and B have one rank more", "count-of-dora shapes-here-and-in-peft"),
        ("nothing is dropped", "what-lora-dropout-drops"),
        ("A and B have one rate", "lora-plus-rates"),
        ("merging adds nothing", "half-of-an-adapter"),
        ("unmerging subtracts", "undo-a-merge-by-keeping-w"),
        ("the optimizer does nothing", "order-of-a-lora-run name-the-forgetting rank-too-low"),
        ("the optimizer does nothing", "spread-the-budget embedding-adapter-starts-at-the-table"),
        ("the optimizer does nothing", "four-bits-in-qlora no-steps-on-four-bit-weights"),
        ("the optimizer does nothing", "vera-trains-two-vectors ia3-rescales paged-optimizer"),
        ("the optimizer does nothing", "facts-that-change-daily a-form-that-prompts-do-not-bring"),
        ("the optimizer does nothing", "what-is-lora first-step-moves-b-only sign-of-overfitting"),
    ],
)
def test_a_broken_lora_proves_no_card_about_it(fault, cards):
    with mock.patch.object(*BROKEN[fault]):
        for card in [CARDS[name] for name in cards.split()]:
            try:
                supported = prove(card).supported
            except Exception:  # the demo noticed it
                continue
            assert supported != [card.answer], card.id
