"""Claims about evaluation: each measure is what its definition says, in however many passes.

The definitions are written out here: a mean of -log p over all positions at once, and a comparison
of words that `generate` writes one by one.
"""

import math

import numpy as np
import pytest

from minilora.generation.sampling import generate
from minilora.tensor import Tensor
from minilora.text.alphabet import ALPHABET, decode, encode
from minilora.text.corpora import load_corpus
from minilora.text.string_tasks import string_batch, string_examples
from minilora.text.windows import IGNORE_INDEX, spaced_windows
from minilora.training import quality as evaluate
from minilora.training.loop import TrainConfig, train
from minilora.training.quality import EXACT, METRICS, NATS, NATS_PER_TOKEN, exact_match, text_loss
from minilora.transformer import Transformer, TransformerConfig


def make(block_size=12, **options):
    sizes = {**dict(n_layer=1, n_head=2, n_embd=16), **options}
    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(96, block_size, **sizes), rng=rng)
    model.tok_embed.weight.data *= 20  # far from uniform: every window has its own loss
    return model


class Says:
    """A model that looks up its logits by a row's first symbol, and keeps what it was shown."""

    def __init__(self, logits):
        self.logits, self.calls, self.config = np.asarray(logits, np.float32), [], make(3).config

    def __call__(self, ids):
        self.calls.append(ids)
        return Tensor(self.logits[ids[:, 0]], requires_grad=True)


def direct_text_loss(model, tokens, windows):
    ids, targets = spaced_windows(tokens, windows, model.config.block_size)
    logits = model(ids).data.astype(np.float64)  # (B, T, V)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], axis=-1).mean()


@pytest.mark.parametrize("windows", [1, 63, 64, 65, 100, 256])
def test_text_loss_is_the_mean_over_all_positions_whatever_the_number_of_windows(windows):
    model, tokens = make(), load_corpus("code").val[:5000]
    expected = direct_text_loss(model, tokens, windows)
    assert text_loss(model, tokens, windows) == pytest.approx(expected, rel=1e-5)


def test_text_loss_takes_256_windows_unless_told_otherwise():
    model, tokens = make(), load_corpus("code").val[:5000]
    assert text_loss(model, tokens) == text_loss(model, tokens, 256)
    assert text_loss(model, tokens) != text_loss(model, tokens, 255)


def test_the_measures_do_not_depend_on_the_rows_of_a_forward_pass(monkeypatch):
    model, tokens = make(), load_corpus("code").val[:5000]
    ids = np.random.default_rng(0).integers(96, size=(90, 12))
    targets = model(ids).data.argmax(axis=-1)
    targets[::4, 5] = 95 - targets[::4, 5]  # 23 of the 90 rows have a wrong target
    whole = text_loss(model, tokens, 100), exact_match(model, ids, targets)
    assert whole[1] == 67 / 90
    monkeypatch.setattr(evaluate, "_ROWS", 7)
    assert text_loss(model, tokens, 100) == pytest.approx(whole[0], rel=1e-6)
    assert exact_match(model, ids, targets) == whole[1]


def test_a_model_that_knows_nothing_has_the_loss_of_the_uniform_distribution():
    model = make()
    model.tok_embed.weight.data[...] = 0  # tied to the head: all logits are 0
    loss = text_loss(model, load_corpus("prose").val, 70)
    assert loss == pytest.approx(math.log(len(ALPHABET)), abs=1e-6)


def test_evaluation_records_no_graph_and_leaves_no_gradient():
    model, recorded = make(), []

    class Watched(Transformer):
        def __call__(self, *args):
            out = super().__call__(*args)
            recorded.append(out.requires_grad)
            return out

    model.__class__ = Watched
    text_loss(model, load_corpus("code").val, 3)
    exact_match(model, np.zeros((2, 5), int), np.zeros((2, 5), int))
    assert recorded == [False, False]
    assert all(p.grad is None for p in model.parameters())
    assert model(np.zeros((1, 2), int)).requires_grad  # recording goes on afterwards


# Three rows of three positions over the symbols 0, 1, 2; the likeliest are 0 1 2, 2 2 0 and 1 0 0.
LIKELIEST = np.array([[0, 1, 2], [2, 2, 0], [1, 0, 0]])
LOGITS = np.eye(3)[LIKELIEST] - 5
IDS = np.array([[0, 9, 9], [1, 9, 9], [2, 9, 9]])
_ = IGNORE_INDEX


@pytest.mark.parametrize(
    ("targets", "share"),
    [
        ([[0, 1, 2], [2, 2, 0], [1, 0, 0]], 1),
        ([[0, 1, 2], [2, 2, 1], [1, 0, 0]], 2 / 3),  # one wrong symbol loses the word
        ([[_, 1, 2], [_, 2, 0], [_, 0, 1]], 2 / 3),
        ([[_, 1, _], [_, _, 0], [1, _, _]], 1),
        ([[_, 0, _], [_, _, 1], [0, _, _]], 0),
        ([[1, _, 2], [2, _, 0], [0, _, 0]], 1 / 3),
    ],
)
def test_exact_match_is_the_share_of_rows_without_a_wrong_target(targets, share):
    assert exact_match(Says(LOGITS), IDS, np.array(targets)) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 64, 65, 150])
def test_exact_match_counts_every_row_once(rows):
    pick = np.random.default_rng(rows).integers(3, size=rows)
    model = Says(LOGITS)
    targets = LIKELIEST[pick].copy()
    wrong = np.unique([0, rows // 2, rows - 1])
    targets[wrong, 1] += 1
    assert exact_match(model, IDS[pick], targets) == (rows - len(wrong)) / rows
    np.testing.assert_array_equal(np.concatenate(model.calls), IDS[pick])


def test_exact_match_is_the_share_of_words_that_greedy_generation_gets_right():
    """On a model that has half learned to name the last letter and to copy."""
    tasks, words = ["last", "first", "copy"], "stone river cloud green house table".split()
    model = make(20, n_embd=32)
    model.tok_embed.weight.data /= 20
    train(
        model,
        lambda rng: string_batch(tasks, words, 16, 20, rng),
        TrainConfig(steps=60, lr=1e-2, seed=1),
    )
    ids, targets = string_examples(tasks, words * 6, 20, np.random.default_rng(0))
    right = 0
    for row, target in zip(ids, targets, strict=True):
        prompt, answer = row[: np.argmax(target != IGNORE_INDEX) + 1], decode(target[target >= 0])
        assert prompt[-1] == encode(">")[0] and answer.endswith("\n")
        written = generate(model, prompt, len(answer), temperature=0)[0, len(prompt) :]
        right += decode(written) == answer
    assert 0 < right < len(ids), "a model that is always or never right would show nothing"
    assert exact_match(model, ids, targets) == right / len(ids)


def test_metrics_are_found_by_name_and_show_values_as_a_person_reads_them():
    assert METRICS == {"nats": NATS, "exact": EXACT, "nats_per_token": NATS_PER_TOKEN}
    assert (NATS.format.format(1.69041), NATS.higher_is_better) == ("1.690", False)
    assert (EXACT.format.format(0.9214), EXACT.higher_is_better) == ("92.1%", True)
    assert (NATS.unit, EXACT.unit) == ("nats per character", "share of answers exactly right")
