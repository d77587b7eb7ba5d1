"""What a run leaves on disk: damaged, or sealed with a right checksum around what no run leaves."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from folders import make
from kinds import AS_SAID, Kind, need_bytes
from mutations import Files, Rng, pick
from plain_readers import (
    need,
    plain_json,
    safetensors_header,
)
from safetensors import SafetensorError
from safetensors.numpy import load, save

from minilora.text.windows import random_windows
from minilora.training.checkpoint import _checksum
from minilora.training.loop import TrainConfig, Training

_TOKENS = np.random.default_rng(7).integers(11, size=300)
_RESUME = "run.safetensors"
_CONFIG = TrainConfig(steps=6, lr=1e-2, warmup=2)


def _batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random_windows(_TOKENS, 2, 6, rng)


def _training(file: Path) -> Training:
    options: dict[str, Any] = dict(evaluate=lambda model: 1.5, evaluate_every=2, save_every=1)
    return Training(make("gpt2", 5), _batch, _CONFIG, checkpoint=file, **options)


@cache
def _run(steps: int) -> tuple[bytes, Training]:
    """A checkpoint, and the run that left it."""
    with tempfile.TemporaryDirectory() as place:
        training = _training(Path(place, _RESUME))
        for _ in range(steps):
            training.step()
        return Path(place, _RESUME).read_bytes(), training


class Resumes(Kind):
    """What a run leaves on disk: damaged, or (sealed) what no run leaves, with a right checksum."""

    def __init__(self, sealed: bool = False) -> None:
        self.name = f"resume checkpoint{' with a right checksum' if sealed else ''}"
        self.damaged_before = sealed

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        raw, training = _run(int(rng.integers(1, 6)))
        return {_RESUME: _sealed(rng, training) if self.damaged_before else raw}

    def target(self) -> Any:
        return make("gpt2", 5)

    def state(self, target: Any) -> Any:
        return [(n, p.requires_grad, p.data.tobytes()) for n, p in target.named_parameters()]

    def load(self, folder: Path, target: Any) -> Any:
        options: dict[str, Any] = dict(evaluate=lambda model: 1.5, evaluate_every=2)
        file = folder / _RESUME
        return Training(target, _batch, _CONFIG, checkpoint=file, **options)

    def judge(self, files: Files, loaded: Any) -> str:
        if files[_RESUME] == "missing" or files[_RESUME] == "a broken link":
            need(loaded.steps_done == 0, "it goes on from nothing")
            return AS_SAID
        (raw,) = need_bytes(files, _RESUME)
        run = _run(1)[1]
        try:
            arrays = load(raw)
        except (SafetensorError, ValueError) as error:
            need(False, f"{error}")
        said = safetensors_header(raw)[0].get("__metadata__", {}).get("run", "")
        need(plain_json(said.encode()) == run._identity, "it is of another run")
        losses, seconds, pairs = (arrays.pop(name, None) for name in _HISTORY)
        need(losses is not None and losses.ndim == 1 and losses.size, "losses")
        need(0 < losses.size <= _CONFIG.steps and np.isfinite(losses).all(), "losses")
        need(seconds is not None and seconds.shape == losses.shape, "seconds")
        need(np.isfinite(seconds).all() and (seconds >= 0).all(), "seconds")
        need(pairs is not None and pairs.ndim == 2 and pairs.shape[1] == 2, "evaluations")
        steps = pairs[:, 0].tolist()
        need(all(x in range(losses.size + 1) for x in steps), "evaluations")
        need(steps == sorted(set(steps)), "evaluations")
        found = loaded.history
        measured = np.array(found.evaluations).reshape(-1, 2)
        need(found.losses == losses.tolist() and found.seconds == seconds.tolist(), "history")
        need(np.array_equal(measured, pairs, equal_nan=True), "evaluations")
        state = loaded.optimizer.state()
        need(arrays.keys() == state.keys(), "other arrays")
        for key, array in arrays.items():
            need(np.isfinite(array).all() and np.array_equal(state[key], array), f"another {key}")
        need(int(state["t"]) == losses.size, "t")
        return AS_SAID


_HISTORY = ("losses", "seconds", "evaluations")


def _sealed(rng: Rng, training: Training) -> bytes:
    """A checkpoint with one thing in it that no run leaves, and the checksum of that."""
    with tempfile.TemporaryDirectory() as place:
        training.checkpoint = Path(place, _RESUME)
        training.save()
        raw = training.checkpoint.read_bytes()
    arrays = load(raw)
    name = pick(rng, sorted(arrays))
    array = arrays[name]
    how = int(rng.integers(6))
    if how == 0:
        del arrays[name]
    elif how == 1:
        arrays["strange"] = array
    elif how == 2:
        changes = [array[..., None], array.reshape(-1)[:1], array.reshape(-1)[:0], array.T]
        arrays[name] = pick(rng, changes)
    elif how == 3:
        arrays[name] = array.astype(pick(rng, ["f8", "f4", "i8", "u1", "?"]))
    elif how == 4 and array.ndim:
        arrays[name] = np.concatenate([array, array])
    elif array.size:
        numbers = [-1, 7, 2**31] if array.dtype.kind == "i" else [np.nan, np.inf, -1.0, 0.5, 1e300]
        with np.errstate(over="ignore"):
            array.flat[int(rng.integers(array.size))] = pick(rng, numbers)
    run = safetensors_header(raw)[0]["__metadata__"]["run"]
    if how == 5 and rng.random() < 0.3:
        run = pick(
            rng, ["", "null", "[]", "{}", "[" * 100_000, run.replace("steps", "stops"), "NaN"]
        )
    return save(arrays, {"run": run, "checksum": _checksum(run, arrays)})
