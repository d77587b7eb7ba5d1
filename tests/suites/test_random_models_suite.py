"""Claims about the suite of random models: a part of it holds, and it notices what is wrong."""

import numpy as np
import pytest
import random_models

from minilora.hub import peft_layout
from minilora.lora_config import LoraConfig


def test_random_models_and_adapters_of_ours_are_read_as_they_were_written(monkeypatch):
    monkeypatch.setattr(random_models, "torch", None)
    ends = random_models.SUITE.run(seed=1, trials=6)
    assert not random_models.SUITE.faults(ends), ends


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_random_models_and_adapters_are_the_same_in_transformers_and_peft():
    pytest.importorskip("peft")
    ends = random_models.SUITE.run(seed=1, trials=40)
    assert not random_models.SUITE.faults(ends), ends
    assert ends[random_models.AGREE] > 25


def test_an_adapter_that_is_read_with_another_scale_is_noticed(monkeypatch):
    monkeypatch.setattr(random_models, "torch", None)
    real = LoraConfig.rank_and_scale

    def spoiled(config, path):
        r, s = real(config, path)
        return r, s * 1.001

    for i in range(12):
        with monkeypatch.context() as patch:
            patch.setattr(LoraConfig, "rank_and_scale", spoiled)
            ends = {random_models.trial(1, i)[0]}
        if ends == {"our adapter, saved and loaded: other logits"}:
            return
    pytest.fail("no trial noticed")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_factors_that_change_places_are_noticed(monkeypatch):
    pytest.importorskip("peft")
    real = peft_layout.Factors

    def spoiled(A, B, scale, m=None):
        return real(A, np.flip(B, axis=1), scale, m)

    monkeypatch.setattr("minilora.hub.adapters.Factors", spoiled)
    ends = random_models.SUITE.run(seed=1, trials=12)
    assert random_models.SUITE.faults(ends)
