"""Claims about checkpoints: no run is ever lost or mixed up, and no damage reaches a model.

In the tests marked `system` real processes are killed and interrupted, in lockstep with the test:
the child announces each step and waits for a line, so that it is known where the signal strikes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import safetensors.numpy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from small_runs import (
    CONFIG,
    METHODS,
    TOKENS,
    assert_same_end,
    assert_same_weights,
    batch,
    checkpointed,
    make,
)

from minilora.functional import cross_entropy
from minilora.lora_config import LoraConfig
from minilora.optim import AdamW
from minilora.system.files import temporary_folder
from minilora.text.windows import random_windows
from minilora.training.checkpoint import _checksum
from minilora.training.loop import Training, run, train


@METHODS
@pytest.mark.parametrize("stop", [1, 3, 5, 9])
def test_a_run_cut_off_goes_on_from_its_checkpoint_bit_for_bit(method, stop, tmp_path):
    whole = checkpointed(None, method)
    run([whole])
    path = tmp_path / "new folder" / "run.safetensors"
    checkpointed(path, method, stop)
    resumed = checkpointed(str(path), method)
    assert resumed.steps_done == stop // 3 * 3
    run([resumed])
    assert_same_end(whole, resumed)
    assert len(resumed.history.seconds) == 10


def test_a_run_of_lora_plus_goes_on_bit_for_bit_and_not_as_one_of_lora(tmp_path):
    config = replace(CONFIG, loraplus_lr_ratio=16)
    whole = Training(make("lora"), batch, config)
    run([whole])
    first = Training(make("lora"), batch, config, checkpoint=tmp_path / "c", save_every=4)
    for _ in range(6):
        first.step()
    second = Training(make("lora"), batch, config, checkpoint=tmp_path / "c")
    assert second.steps_done == 4
    run([second])
    assert_same_end(whole, second)
    with pytest.raises(ValueError, match="another run .it differs in: loraplus_lr_ratio"):
        Training(make("lora"), batch, CONFIG, checkpoint=tmp_path / "c")


def test_a_finished_run_is_not_run_again(tmp_path):
    first = checkpointed(tmp_path / "c")
    run([first])
    again = checkpointed(tmp_path / "c")
    assert again.done and again.history == first.history
    assert_same_end(first, again)
    drawn = []
    again.batch = drawn.append
    run([again])
    assert drawn == [] and again.steps_done == 10


def test_the_last_step_is_saved_whatever_save_every_is(tmp_path):
    training = checkpointed(tmp_path / "c", save_every=1000)
    run([training])
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(load_file(tmp_path / "c")["flat"], training.optimizer.flat)


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = checkpointed(None, steps_before_stop=4)
    training.save()
    assert list(tmp_path.iterdir()) == []


def test_settings_in_numbers_of_numpys_are_the_same_run(tmp_path):
    train(make(), batch, CONFIG, checkpoint=tmp_path / "c")
    same = replace(CONFIG, steps=np.int64(10), lr=np.float64(1e-2), seed=np.uint8(0), clip=1)
    assert Training(make(), batch, same, checkpoint=tmp_path / "c").done


def frozen_embedding():
    model = make()
    model.tok_embed.weight.requires_grad = False
    return model


def other_tokens(rng):
    return random_windows(TOKENS[::-1], 4, 16, rng)


@pytest.mark.parametrize(
    ("model", "draw", "config", "differs"),
    [
        (make, batch, replace(CONFIG, lr=2e-2), "lr"),
        (make, batch, replace(CONFIG, seed=1), "seed, first batch"),
        (make, batch, replace(CONFIG, steps=11), "steps"),
        (make, batch, replace(CONFIG, warmup=4), "warmup"),
        (make, batch, replace(CONFIG, weight_decay=0.1), "weight_decay"),
        (make, batch, replace(CONFIG, betas=(0.9, 0.98)), "betas"),
        (make, batch, replace(CONFIG, clip=0.5), "clip"),
        (make, batch, replace(CONFIG, steps=11, lr=2e-2), "steps, lr"),
        (lambda: make(seed=1), batch, CONFIG, "first weights"),
        (lambda: make(n_embd=32), batch, CONFIG, "model, first weights"),
        (lambda: make(n_head=4), batch, CONFIG, "model"),  # of the same weights
        (lambda: make(dropout=0.1), batch, CONFIG, "model"),
        (make, other_tokens, CONFIG, "first batch"),
        (frozen_embedding, batch, CONFIG, "trained parameters"),
        (lambda: make("lora"), batch, CONFIG, "adapters, trained parameters, first weights"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(
    model, draw, config, differs, tmp_path
):
    path = tmp_path / "c"
    train(make(), batch, CONFIG, checkpoint=path)
    content, other = path.read_bytes(), model()
    before = other.state_dict()
    with pytest.raises(ValueError, match="checkpoint of another run") as caught:
        Training(other, draw, config, checkpoint=path)
    message = str(caught.value)
    assert str(path) in message and f"(it differs in: {differs})" in message
    assert "delete it, or choose another folder" in message
    assert path.read_bytes() == content
    assert_same_weights(before, other.state_dict())


@pytest.mark.parametrize(
    "change", [dict(lora_alpha=16), dict(lora_dropout=0.1), dict(use_rslora=True)]
)
def test_a_checkpoint_of_another_adapter_of_the_same_weights_is_refused(change, tmp_path):
    lora = LoraConfig(r=2, lora_alpha=8)
    train(make("lora", lora=lora), batch, CONFIG, checkpoint=tmp_path / "c")
    model = make("lora", lora=replace(lora, **change))
    with pytest.raises(ValueError, match=r"differs in: adapters\)"):
        Training(model, batch, CONFIG, checkpoint=tmp_path / "c")


def refused(path, method="full"):
    """The sentence with which a checkpoint is refused; its model is as it was."""
    model = make(method)
    before = model.state_dict()
    with pytest.raises(ValueError, match="(incomplete or|is) damaged") as caught:
        Training(model, batch, CONFIG, checkpoint=path)
    assert_same_weights(before, model.state_dict())
    error = caught.value
    assert str(path) in str(error) and (error.__suppress_context__ or not error.__context__)
    return str(error)


def without_history(path):
    save_file(load_file(path), path, {"run": "{}"})


def without_metadata(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize(
    "damage",
    [
        without_history,
        without_metadata,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a checkpoint at all" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
    ],
    ids="no-history no-metadata truncated empty garbage header-only".split(),
)
def test_a_damaged_checkpoint_is_an_error_that_says_to_delete_it(damage, tmp_path):
    train(make(), batch, CONFIG, checkpoint=tmp_path / "c")
    damage(tmp_path / "c")
    assert refused(tmp_path / "c").endswith("; delete it to start again")


@METHODS
def test_a_byte_that_flipped_anywhere_is_found_before_anything_changes(method, tmp_path):
    path = tmp_path / "c"
    train(make(method), batch, CONFIG, checkpoint=path)
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    rng = random.Random(0)
    in_header = rng.sample(range(header), 60)
    for at in in_header + rng.sample(range(header, len(good)), 60):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        model = make(method)
        before = model.state_dict()
        try:
            resumed = Training(model, batch, CONFIG, checkpoint=path)
        except ValueError:  # of another run, where the byte is in what identifies it
            assert_same_weights(before, model.state_dict())
        else:  # nothing read it: a space, say
            path.write_bytes(good)
            assert at < header
            assert_same_end(Training(make(method), batch, CONFIG, checkpoint=path), resumed)


@cache
def finished(method="full"):
    """The bytes of the checkpoint of a finished run."""
    with temporary_folder() as folder:
        train(make(method), batch, CONFIG, checkpoint=folder / "c")
        return (folder / "c").read_bytes()


def forged(path, run=None, **changes):
    """The checkpoint with other arrays (None: without one) or of another run, and a checksum that
    is right."""
    with safe_open(path, framework="np") as file:
        run = file.metadata()["run"] if run is None else run
    arrays = {
        name: array for name, array in (load_file(path) | changes).items() if array is not None
    }
    save_file(arrays, path, {"run": run, "checksum": _checksum(run, arrays)})


def steps(n, value=1.0):
    return np.full(n, value)


def with_one(bad):
    return np.array([1.0] * 9 + [bad])


def evaluated(*pairs):
    return np.array(pairs, float).reshape(-1, 2)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (dict(losses=steps(11), seconds=steps(11)), "it has 11 losses, but not 11 steps"),
        (dict(losses=steps(11), seconds=steps(11), t=np.array(11)), "it has 11 steps, and the run"),
        (dict(losses=steps(9)), "it has 9 losses, but not 9 steps"),
        (dict(losses=None), "it has no losses"),
        (dict(losses=steps((2, 5))), "its losses are float64 (2, 5)"),
        (dict(losses=steps(10).astype(np.float32)), "its losses are float32 (10,)"),
        (dict(losses=with_one(np.nan)), "it has losses or seconds that no step has"),
        (dict(losses=with_one(-np.inf)), "it has losses or seconds that no step has"),
        (dict(seconds=with_one(-1)), "it has losses or seconds that no step has"),
        (dict(seconds=with_one(np.inf)), "it has losses or seconds that no step has"),
        (dict(seconds=steps(9)), "its seconds are float64 (9,)"),
        (dict(seconds=steps(())), "its seconds are float64 ()"),
        (dict(evaluations=steps(4)), "its evaluations are float64 (4,)"),
        (dict(evaluations=steps(())), "its evaluations are float64 ()"),
        (dict(evaluations=evaluated((0, 1), (11, 1))), "evaluations that are not of its 10 steps"),
        (dict(evaluations=evaluated((-1, 1))), "evaluations that are not of its 10 steps"),
        (dict(evaluations=evaluated((0.5, 1))), "evaluations that are not of its 10 steps"),
        (dict(evaluations=evaluated((np.nan, 1))), "evaluations that are not of its 10 steps"),
        (dict(evaluations=evaluated((4, 1), (4, 1))), "evaluations that are not of its 10 steps"),
        (dict(t=np.array(7)), "it has 10 losses, but not 10 steps"),
        (dict(t=None), "it has 10 losses, but not 10 steps"),
        (dict(t=np.array([10])), "it has 10 losses, but not 10 steps"),
        (dict(t=np.array(10.0)), "t is float64 () where these parameters need int64 ()"),
        (dict(m=steps(3).astype(np.float32)), "m is float32 (3,) where these parameters need"),
        (dict(m=None), "it has flat, t, v, not flat, m, t, v"),
        (dict(more=np.zeros(1)), "it has flat, m, more, t, v"),
        (dict(run=""), "Expecting value"),
        (dict(run="[]"), "it does not say of which run it is"),
        (dict(run="[" * 100_000), "it is nested more than 100 deep"),
        (dict(run="1" * 5000), "Exceeds the limit"),
    ],
)
def test_contents_that_no_run_of_these_steps_and_parameters_leaves_are_refused(
    changes, cause, tmp_path
):
    (tmp_path / "c").write_bytes(finished())
    forged(tmp_path / "c", **changes)
    assert cause in refused(tmp_path / "c")


@METHODS
@pytest.mark.parametrize("name", ["flat", "m", "v"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_numbers_that_no_step_leaves_behind_are_refused(method, name, bad, tmp_path):
    path = tmp_path / "c"
    path.write_bytes(finished(method))
    array = load_file(path)[name]
    array[5] = bad
    forged(path, **{name: array})
    if bad == -1 and name != "v":
        assert Training(make(method), batch, CONFIG, checkpoint=path).done
    else:
        assert f"{name} has numbers that no step leaves behind" in refused(path, method)


def test_a_checkpoint_with_settings_that_are_not_known_is_of_another_run(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(finished())
    with safe_open(path, framework="np") as file:
        run_ = json.loads(file.metadata()["run"])
    forged(path, run=json.dumps({**run_, "new": 1}))
    with pytest.raises(ValueError, match="it differs in: settings that are not known here"):
        Training(make(), batch, CONFIG, checkpoint=path)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "I4", "U64", "BOOL", "C64", "F16"])
def test_tensors_of_any_other_kind_are_refused(kind, tmp_path):
    path = tmp_path / "c"
    path.write_bytes(finished())
    bits = {"BF16": 16, "F8_E4M3": 8, "I4": 4, "U64": 64, "BOOL": 8, "C64": 64, "F16": 16}[kind]
    about = {"dtype": kind, "shape": [2], "data_offsets": [0, 2 * bits // 8]}
    run_ = {"run": "{}", "checksum": "00000000"}
    header = json.dumps({"__metadata__": run_, "flat": about}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * bits // 8))
    refused(path)


def test_a_library_that_quotes_the_file_is_cut_short(tmp_path):
    tensor = {"dtype": "F32" + "x" * 5000, "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"flat": tensor}).encode()
    (tmp_path / "c").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    sentence = refused(tmp_path / "c").removeprefix(str(tmp_path))
    assert len(sentence) < 200 and "\n" not in sentence


def test_a_history_with_evaluations_that_are_not_finite_is_kept(tmp_path):
    values = iter([np.inf, np.nan, -np.inf, 1.5])
    options = dict(evaluate=lambda model: next(values), evaluate_every=4, checkpoint=tmp_path / "c")
    first = Training(make(), batch, CONFIG, **options)
    run([first])
    again = Training(make(), batch, CONFIG, **options)
    assert repr(again.history) == repr(first.history)
    assert "inf" in repr(first.history) and "nan" in repr(first.history)


def test_a_refused_checkpoint_leaves_another_optimizer_of_the_model_at_work(tmp_path):
    (tmp_path / "c").write_bytes(finished())
    forged(tmp_path / "c", more=np.zeros(1))
    model = make()
    optimizer = AdamW(model.trainable_parameters())
    with pytest.raises(ValueError, match="incomplete or damaged"):
        Training(model, batch, CONFIG, checkpoint=tmp_path / "c")
    cross_entropy(model(batch(np.random.default_rng(0))[0]), TOKENS[:64].reshape(4, 16)).backward()
    optimizer.step()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as POSIX has them")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "c")
    with pytest.raises(ValueError, match="c is a pipe or a device"):
        Training(make(), batch, CONFIG, checkpoint=tmp_path / "c")


def test_a_checkpoint_without_a_checksum_is_refused(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(finished())
    with safe_open(path, framework="np") as file:
        about = file.metadata()
    del about["checksum"]
    save_file(load_file(path), path, about)
    assert "its checksum is missing" in refused(path)


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c"
    training = checkpointed(path, steps_before_stop=5)  # saved at 3
    content = path.read_bytes()

    def disk_full(state, path, about):
        path.write_bytes(content[: len(content) // 2])
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", disk_full)
        with pytest.raises(OSError, match="the disk is full"):
            training.step()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]  # and no litter
    run([training])  # with room again, the run goes on
    whole = checkpointed(None)
    run([whole])
    assert_same_end(whole, training)
    assert checkpointed(path).done


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path):
    training = checkpointed(tmp_path / "c", steps_before_stop=3)
    content = (tmp_path / "c").read_bytes()
    training.optimizer.flat[7] = np.inf
    training.save()
    assert (tmp_path / "c").read_bytes() == content


SCRIPT = textwrap.dedent("""
    import signal, sys
    from pathlib import Path

    import numpy as np

    from minilora.lora import add_adapter
    from minilora.lora_config import LoraConfig
    from minilora.training.loop import TrainConfig, Training, TrainingInterrupted, run
    from minilora.transformer import Transformer, TransformerConfig

    signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and shells in CI ignore it
    method, folder = sys.argv[1], Path(sys.argv[2])
    tokens = np.random.default_rng(0).integers(20, size=2000)

    class Announced(Training):
        def step(self, pool=None):
            print(self.steps_done, flush=True)
            sys.stdin.readline()
            return super().step(pool)

    def batch(rng):
        rows = tokens[rng.integers(1900, size=(4, 1)) + np.arange(17)]
        return rows[:, :-1], rows[:, 1:]

    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(20, 16, 1, 2, 16, dropout=0.1), rng=rng)
    if method == "lora":
        lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.2)
        add_adapter(model, lora, rng=rng)
    training = Announced(
        model, batch, TrainConfig(steps=40, lr=1e-2, seed=3), name=method,
        evaluate=lambda model: float(model.norm.bias.data.sum()), evaluate_every=7,
        checkpoint=folder / "checkpoint.safetensors", save_every=2,
    )
    try:
        run([training])
    except TrainingInterrupted as stopped:
        sys.exit(f"caught: {stopped}")
    h = training.history
    np.savez(folder / "end.npz", losses=h.losses, evaluations=h.evaluations, **model.state_dict())
""")


class Child:
    """The script in a process of its own, stepped from here. It ends with the `with` block."""

    def __init__(self, folder, method):
        folder.mkdir(exist_ok=True)
        script = folder / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(script), method, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def announced(self):
        """The step the child is about to make, or None at its end."""
        line = self.process.stdout.readline()
        return int(line) if line else None

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def go_to(self, step):
        """Let it make every step before this one; returns the first it made."""
        at = first = self.announced()
        assert first is not None, self.process.stderr.read()
        while at != step:
            self.go()
            at = self.announced()
            assert at is not None, self.process.stderr.read()
        return first

    def go_to_the_end(self):
        first = at = self.announced()
        while at is not None:
            self.go()
            at = self.announced()
        assert self.process.wait() == 0, self.process.stderr.read()
        return first


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The end of the script's runs that nobody disturbs, by method."""
    ends = {}
    for method in ("full", "lora"):
        folder = tmp_path_factory.mktemp(f"undisturbed-{method}")
        with Child(folder, method) as child:
            assert child.go_to_the_end() == 0
        ends[method] = dict(np.load(folder / "end.npz"))
    return ends


def steps_saved(path):
    with safe_open(path, framework="np") as file:
        return int(file.get_tensor("t"))


@pytest.mark.system
@METHODS
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(method, undisturbed, tmp_path):
    moments = random.Random(method)
    resumed_at = 0
    for kill in range(3):
        with Child(tmp_path, method) as child:
            step = moments.randrange(12 * kill + 3, 12 * kill + 12)
            assert child.go_to(step) == resumed_at
            child.go()
            threading.Event().wait(moments.random() * 0.003)  # it dies somewhere in this step
            child.process.kill()
            child.process.wait()
        # Saved every two steps: at the latest save before this step, or right after it.
        resumed_at = steps_saved(tmp_path / "checkpoint.safetensors")
        assert resumed_at in {step // 2 * 2, (step + 1) // 2 * 2}
        assert not (tmp_path / "end.npz").exists()
    with Child(tmp_path, method) as child:
        assert child.go_to_the_end() == resumed_at
    assert_same_weights(undisturbed[method], dict(np.load(tmp_path / "end.npz")))


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles only")
@pytest.mark.parametrize("ignored", [False, True])
@METHODS
def test_a_run_stopped_by_ctrl_c_says_so_and_goes_on(method, ignored, undisturbed, tmp_path):
    """Also where the parent ignores Ctrl-C, as under nohup: a child inherits that."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        interrupted = Child(tmp_path, method)
    finally:
        if ignored:
            signal.signal(signal.SIGINT, before)
    with interrupted as child:
        child.go_to(6)
        child.process.send_signal(signal.SIGINT)
        child.go()
        out, err = child.process.communicate(timeout=60)
    assert (child.process.returncode, out) == (1, "")
    assert err.startswith("caught: stopped:") and "Traceback" not in err
    assert f"{method} at step 7 of 40. All is saved; the same command goes on from here" in err
    with Child(tmp_path, method) as child:
        assert child.go_to_the_end() == 7
    assert_same_weights(undisturbed[method], dict(np.load(tmp_path / "end.npz")))
