"""Claims about costs: measuring them changes nothing, and a file weighs what it weighs."""

import copy
import tracemalloc

import numpy as np
import pytest
from builders import SIZES, adapted, tiny

import minilora as ml
from minilora.experiments.costs import disk_bytes, step_memory
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.training.loop import TrainConfig, Training

TOKENS = np.random.default_rng(0).integers(SIZES["vocab_size"], size=500)


def batch(rng):
    return ml.random_windows(TOKENS, 4, 12, rng)


def training(model, batch=batch):
    return Training(model, batch, TrainConfig(steps=5, lr=1e-2))


def test_measuring_memory_leaves_the_training_where_it_was():
    t = training(tiny())
    before = copy.deepcopy(t.model.state_dict())
    assert step_memory(t) > 12 * sum(p.size for p in t.model.parameters())  # gradient, two moments
    assert t.steps_done == 0 and not t.optimizer.m.any()
    for name, array in t.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_step_of_lora_takes_less_memory():
    assert step_memory(training(adapted())) < step_memory(training(tiny()))


def test_measuring_memory_stops_when_the_step_fails():
    def fail(rng):
        raise RuntimeError("no batch")

    with pytest.raises(RuntimeError, match="no batch"):
        step_memory(training(tiny(), fail))
    assert not tracemalloc.is_tracing()


def test_measuring_memory_within_somebody_elses_measurement_leaves_it_running():
    t = training(tiny())
    alone = step_memory(t)
    tracemalloc.start()
    try:
        mine = np.ones(2**20)  # 8 MiB that are not the step's
        within = step_memory(t)
        assert tracemalloc.is_tracing() and mine.all()
    finally:
        tracemalloc.stop()
    assert within == pytest.approx(alone, rel=0.02)


def size_of(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def test_disk_bytes_are_those_of_the_files_one_would_save(tmp_path):
    ml.save_model(tiny(), tmp_path / "model")
    assert disk_bytes(tiny()) == size_of(tmp_path / "model")
    model = adapted()
    ml.save_adapter(model, tmp_path / "adapter")
    assert disk_bytes(model) == size_of(tmp_path / "adapter") < disk_bytes(tiny())
    ml.merge_and_unload(model)
    assert disk_bytes(model) == disk_bytes(tiny())  # the whole of it again


@pytest.mark.parametrize("method", ["bitfit", "prefix", "head"])
def test_of_other_methods_the_trained_numbers_alone_are_kept(method):
    model = tiny()
    METHODS[method].prepare(model, LoraConfig(r=2), np.random.default_rng(0))
    numbers = sum(p.size for p in model.trainable_parameters())
    assert 4 * numbers < disk_bytes(model) < 4 * numbers + 2_000  # float32, and their names


def test_costs_are_found_at_the_root_too():
    assert ml.step_memory is step_memory and ml.disk_bytes is disk_bytes
