"""Runs of ten steps that the tests of this folder share: models, batches and what to compare."""

from typing import Any

import numpy as np
import pytest
from builders import tiny

from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.text.windows import random_windows
from minilora.training.loop import TrainConfig, Training

SIZES: dict[str, Any] = dict(vocab_size=96, block_size=16, n_layer=1, n_head=2)
CONFIG = TrainConfig(steps=10, lr=1e-2, warmup=3)
LORA = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear")
METHODS = pytest.mark.parametrize("method", ["full", "lora"])
TOKENS = np.random.default_rng(7).integers(96, size=3000)


def make(method="full", seed=0, lora=LORA, **options):
    model = tiny(seed=seed, **SIZES | options)
    if method == "lora":
        add_adapter(model, lora, rng=np.random.default_rng((seed, 1)))
    return model


def batch(rng, rows=4):
    return random_windows(TOKENS, rows, 16, rng)


def large_batch(rng):
    """512 symbols, which are computed in two shards."""
    return batch(rng, rows=32)


def checkpointed(path, method="full", steps_before_stop=0, **options):
    """A Training with dropout and evaluations, saved every 3 steps."""
    lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", lora_dropout=0.1)
    settings = dict(
        checkpoint=path,
        save_every=3,
        evaluate=lambda model: float(model.parameters()[-1].data.sum()),
        evaluate_every=4,
    )
    model = make(method, lora=lora, dropout=0.1)
    training = Training(model, batch, CONFIG, **settings | options)
    for _ in range(steps_before_stop):
        training.step()
    return training


def assert_same_weights(first, second):
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def assert_same_end(training, other):
    """Two runs that ended in the same way, bit for bit."""
    assert training.history.losses == other.history.losses
    assert training.history.evaluations == other.history.evaluations
    assert_same_weights(training.model.state_dict(), other.model.state_dict())
