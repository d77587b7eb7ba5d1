"""Claims that lessons 00 and 05 make in their prose and that no committed cell shows."""

import copy

import numpy as np
import pytest

import minilora as ml
from minilora.lora import lora_layers


def adapted():
    model = ml.load_model("docs-tiny")
    lora = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    ml.add_adapter(model, lora, "code", rng=np.random.default_rng(3))
    return model


def memory_of_a_step(model, texts):
    ids = np.random.default_rng(0).integers(0, 96, (texts, 64))
    training = ml.Training(model, lambda rng: (ids, ids), ml.TrainConfig(steps=1, lr=1e-3))
    return ml.step_memory(training)


@pytest.mark.parametrize(("texts", "per_cent"), [(1, 29), (48, 96)])
def test_loras_share_of_a_steps_memory_rises_with_the_batch(texts, per_cent):
    share = memory_of_a_step(adapted(), texts) / memory_of_a_step(ml.load_model("docs-tiny"), texts)
    assert 100 * share == pytest.approx(per_cent, abs=2)


@pytest.mark.system  # only because it trains, for some seconds
def test_after_100_steps_a_rate_of_a_hundredth_is_best_and_a_tenth_has_learned_nothing():
    code = ml.load_corpus("code")
    losses = []
    for rate in (0.001, 0.01, 0.1):
        model = adapted()
        config = ml.TrainConfig(steps=100, lr=rate, seed=3)
        ml.train(model, code.batches(12, 64), config)
        losses.append(ml.text_loss(model, code.test))
    base = ml.text_loss(ml.load_model("docs-tiny"), code.test)
    assert losses[1] < losses[0] < base < losses[2]


@pytest.mark.system
def test_half_an_adapter_costs_little_and_brings_most_and_more_than_the_whole_is_worse():
    code, english = ml.load_corpus("code"), ml.load_corpus("prose")
    trained = adapted()
    ml.train(trained, code.batches(12, 64), ml.TrainConfig(steps=300, lr=1e-2, seed=3))
    new, old = {}, {}
    for strength in (0, 0.5, 1, 1.5):
        model = copy.deepcopy(trained)
        for layer in lora_layers(model).values():
            layer.adapters["code"].s *= strength
        new[strength], old[strength] = (ml.text_loss(model, c.test) for c in (code, english))
    assert (new[0] - new[0.5]) / (new[0] - new[1]) > 0.6
    assert (old[0.5] - old[0]) / (old[1] - old[0]) < 0.4
    assert new[1.5] > new[1] and old[1.5] > old[1]
