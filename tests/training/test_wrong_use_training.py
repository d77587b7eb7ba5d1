"""Wrong use of training, optimizers and measures: each call and the sentence that answers it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small_runs import CONFIG, TOKENS, batch, checkpointed, large_batch, make

import minilora as ml
from minilora.system.errors import MiniloraError
from minilora.training.loop import TrainConfig, Training, run, train
from minilora.training.quality import exact_match, text_loss

NAN, INF = math.nan, math.inf


def refused(call, sentence):
    with pytest.raises((MiniloraError, ValueError)) as caught:
        call()
    assert sentence in str(caught.value)
    assert isinstance(caught.value, MiniloraError), "the command line would show a traceback"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        *(
            (dict(steps=v), "steps must be a whole number of at least 1")
            for v in (0, -3, 2.5, True)
        ),
        (dict(steps=None), "steps must be a whole number of at least 1, got None"),
        (dict(steps="10"), "steps must be a whole number of at least 1, got '10'"),
        *((dict(lr=v), "lr must be a positive number") for v in (0, -1e-3, NAN, INF, True, None)),
        *((dict(warmup=v), "warmup must be a whole number of at least 0") for v in (-1, 2.5)),
        *((dict(seed=v), "seed must be a whole number of at least 0") for v in (-1, 0.5, None)),
        *((dict(clip=v), "clip must be a positive number") for v in (0, -1, NAN, True, None)),
        *((dict(weight_decay=v), "weight_decay must be a") for v in (-0.1, NAN, True, None)),
        (dict(betas=(1, 1)), "betas[0] must be a number from 0 to"),
        (dict(betas=(0.9, 1.0)), "betas[1] must be a number from 0 to"),
        (dict(betas=(0.9, NAN)), "betas[1] must be a number from 0 to"),
        (dict(betas=0.9), "betas must be two numbers, such as (0.9, 0.999), got 0.9"),
        (dict(betas=(0.9,)), "betas must be two numbers"),
        (dict(loraplus_lr_ratio=0), "loraplus_lr_ratio must be a positive number, got 0"),
    ],
)
def test_a_train_config_that_makes_no_sense_is_refused(change, sentence):
    refused(lambda: replace(CONFIG, **change), sentence)


def test_numpys_numbers_and_no_clipping_are_welcome_in_a_train_config():
    config = TrainConfig(np.int32(3), np.float32(0.5), betas=[0.5, np.float64(0.75)], clip=INF)
    assert config == TrainConfig(3, 0.5, betas=(0.5, 0.75), clip=INF)
    assert {type(config.steps), type(config.lr)} == {int, float}
    assert len(train(make(), batch, config).losses) == 3


def ids_and(targets):
    ids = np.zeros((4, 16), int)
    return lambda rng: (ids, targets)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(model="docs-tiny"), "model must be a model, such as load_model() returns"),
        (dict(model=None), "model must be a model"),
        (dict(batch=batch(np.random.default_rng(0))), "corpus.batches(12, 64), got a tuple"),
        (dict(batch=None), "batch must be a function that draws with a generator"),
        (dict(config=dict(steps=3, lr=0.1)), "config must be a TrainConfig(steps=..., lr=...)"),
        (dict(config=300), "config must be a TrainConfig(steps=..., lr=...), got 300"),
        (dict(evaluate=1.0), "evaluate must be a function of the model, got 1.0"),
        (dict(evaluate_every=3), "evaluate_every=3 needs evaluate"),
        (dict(evaluate_every=-1), "evaluate_every must be a whole number of at least 0, got -1"),
        (dict(evaluate_every=2.0), "evaluate_every must be a whole number of at least 0, got 2.0"),
        (dict(evaluate=lambda model: None), "evaluate must return a number, got None"),
        (dict(save_every=0), "save_every must be a whole number of at least 1, got 0"),
        (dict(save_every=True), "save_every must be a whole number of at least 1, got True"),
        (dict(threads=0), "threads must be a whole number of at least 1, got 0"),
        (dict(threads=-2), "threads must be a whole number of at least 1, got -2"),
        (dict(threads=1.5), "threads must be a whole number of at least 1, got 1.5"),
        (dict(batch=lambda rng: None), "batch must return (ids, targets), got a NoneType"),
        (dict(batch=lambda rng: np.zeros((2, 4, 4), int)), "(ids, targets), got a ndarray"),
        (dict(batch=ids_and(np.zeros((4, 15), int))), "got int64 (4, 16) and int64 (4, 15)"),
        (dict(batch=ids_and(np.zeros((4, 16)))), "whole numbers of one shape (B, T)"),
        (dict(batch=ids_and(np.zeros((4, 16), bool))), "got int64 (4, 16) and bool (4, 16)"),
        (dict(batch=lambda rng: (np.zeros((0, 4), int),) * 2), "B and T at least 1; got int64"),
        (dict(batch=lambda rng: (np.zeros(4, int),) * 2), "whole numbers of one shape (B, T)"),
        (dict(batch=ids_and(np.full((4, 16), -100))), "every target is ignore_index (-100)"),
    ],
)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_training_that_makes_no_sense_is_refused(changes, sentence, checkpoint, tmp_path):
    if checkpoint:
        changes = changes | dict(checkpoint=tmp_path / "c")
    refused(lambda: train(**dict(model=make(), batch=batch, config=CONFIG) | changes), sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_frozen_model_is_refused():
    model = make()
    model.requires_grad_(False)
    refused(lambda: train(model, batch, CONFIG), "is everything frozen")


def test_parameters_frozen_after_the_training_was_made_are_named():
    model = make()
    training = Training(model, batch, CONFIG)
    model.tok_embed.weight.requires_grad = False
    refused(training.step, "frozen")


def test_a_checkpoint_that_can_be_no_file_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    refused(lambda: checkpointed(tmp_path), f"checkpoint={tmp_path} is a folder; name a file in it")
    for path in (tmp_path / "file" / "c", tmp_path / "file" / "deep" / "c"):
        refused(lambda path=path: checkpointed(path), f"{tmp_path / 'file'} is a file")


def test_a_step_after_the_last_is_refused():
    training = Training(make(), batch, CONFIG, name="mine")
    run([training])
    refused(training.step, "mine is at its end: all 10 steps are done")
    assert training.steps_done == 10 and training.done


def test_run_takes_a_list_of_trainings_that_do_not_undo_each_other(tmp_path):
    training, model = checkpointed(tmp_path / "c"), make()
    refused(lambda: run(training), "run takes a list of Trainings, got one Training")
    refused(lambda: run(None), "run takes a list of Trainings, got one NoneType")
    refused(lambda: run([]), "run takes a list of Trainings, one at least")
    refused(lambda: run([model]), "run takes a list of Trainings, one at least")
    refused(lambda: run([training, training]), "two of these trainings have the same model")
    twins = [Training(model, batch, CONFIG) for _ in range(2)]
    refused(lambda: run(twins), "two of these trainings have the same model")
    other = Training(make(), batch, CONFIG, checkpoint=tmp_path / "c")
    refused(lambda: run([training, other]), "two of these trainings have the same checkpoint")


@pytest.mark.parametrize(
    "rebind",
    [
        lambda model: Training(model, batch, CONFIG),
        lambda model: ml.AdamW(model.parameters()),
        lambda model: model.to(np.float64),
        lambda model: setattr(model.norm.weight, "data", model.norm.weight.data * 1),
    ],
    ids=["another Training", "another AdamW", "model.to", "p.data"],
)
@pytest.mark.parametrize("draw", [batch, large_batch])
def test_a_training_whose_parameters_were_replaced_says_so_and_changes_nothing(rebind, draw):
    model = make()
    training = Training(model, draw, CONFIG)
    training.step()
    rebind(model)
    before = model.state_dict()
    refused(training.step, "was given a new array after the optimizer was made")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert training.steps_done == 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        *(
            (lambda m, w=w: text_loss(m, TOKENS, w), "must be a whole number of at least 1")
            for w in (0, -1, 2.5, True, None)
        ),
        (lambda m: text_loss(m, TOKENS[:16]), "only 16"),
        (lambda m: text_loss(m, TOKENS * 1.0), "tokens must be whole numbers"),
        (lambda m: exact_match(m, np.zeros((0, 4), int), np.zeros((0, 4), int)), "B at least 1"),
        (lambda m: exact_match(m, np.zeros((2, 4), int), np.zeros((2, 3), int)), "(2, 3)"),
        (lambda m: exact_match(m, np.zeros(4, int), np.zeros(4, int)), "one shape (B, T)"),
        (lambda m: exact_match(m, np.zeros((2, 4), int), np.full((2, 4), -100)), "no target"),
    ],
)
def test_a_measure_of_nothing_is_refused(call, sentence):
    refused(lambda: call(make()), sentence)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_the_quality_of_a_model_whose_logits_are_not_finite_is_nan(bad):
    model = make()
    model.tok_embed.weight.data[5] = bad
    ids = np.full((3, 4), 5)
    with np.errstate(invalid="ignore"):
        assert math.isnan(text_loss(model, np.full(100, 5), 3))
        assert math.isnan(exact_match(model, ids, ids))
