"""What a run leaves on disk, so that one that was cut off goes on as if it had not been.

The file holds the arrays of optimizer and history, what identifies the run, and a checksum of it
all: a file that was damaged in any way is refused, and nothing of it reaches the model.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from minilora.lora import adapters
from minilora.system.errors import UsageError
from minilora.system.files import make_folder, usable_path, write_atomically
from minilora.system.readers import refuse_depth, require_the_file_itself
from minilora.transformer import Transformer

_REMEDY = "delete it to start again"


@dataclass
class History:
    """What happened: every step's loss and seconds, and the evaluations as (step, value)."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def seconds_per_step(self) -> float:
        """The median, which a busy moment of the machine does not move."""
        return float(np.median(self.seconds)) if self.seconds else math.nan


def fingerprint(
    model: Transformer,
    settings: dict[str, Any],
    ids: np.ndarray,
    targets: np.ndarray,
    identity: str = "",
) -> dict[str, Any]:
    """What makes a run this run: its settings, the model it starts from, its first batch, and what
    stands for all its data. A checkpoint is used only where all of it agrees."""
    parameters = dict(model.named_parameters())
    weights = 0
    for p in parameters.values():
        weights = zlib.crc32(np.ascontiguousarray(p.data).data, weights)
    return {
        **json.loads(json.dumps(settings)),  # as it is read back: lists for tuples
        "model": repr(model.config),
        "adapters": {name: repr(a.config) for name, a in adapters(model).items()},
        "trained parameters": [k for k, p in parameters.items() if p.requires_grad],
        "first weights": weights,
        "first batch": zlib.crc32(ids.tobytes() + targets.tobytes()),
        "data": identity,
    }


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """The path of a file that can be written later. Raises ValueError where it cannot be one."""
    file = usable_path(path)
    if file.is_dir():
        raise UsageError(f"checkpoint={file} is a folder; name a file in it: {file / 'run'}")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UsageError(f"checkpoint={file} cannot be written: {folder} is a file, not a folder")
    return file


def write_checkpoint(
    path: Path, run: dict[str, Any], history: History, state: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint; if that fails, the one of before is left as it was."""
    arrays = {**state, **_arrays(history)}
    about = {"run": json.dumps(run)}
    about["checksum"] = _checksum(about["run"], arrays)
    make_folder(path.parent)
    write_atomically(path, lambda temporary: _save(arrays, temporary, about))


def _arrays(history: History) -> dict[str, np.ndarray]:
    return {
        "losses": np.array(history.losses, np.float64),  # (steps,)
        "seconds": np.array(history.seconds, np.float64),  # (steps,)
        "evaluations": np.array(history.evaluations, np.float64).reshape(-1, 2),
    }


def _save(arrays: dict[str, np.ndarray], path: Path, about: dict[str, str]) -> None:
    """Straight from the arrays, of which no copy is made. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, about)
    except SafetensorError as error:  # the system's error is a part of its text
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from None


def read_checkpoint(path: Path, run: dict[str, Any]) -> tuple[History, dict[str, np.ndarray]]:
    """The history and the optimizer's state in a checkpoint of this very run.

    Raises UsageError if it is of another run, damaged, or has what no run leaves; OSError if it
    cannot be read. Whether the state fits the parameters, the optimizer knows.
    """
    from safetensors import SafetensorError, safe_open

    require_the_file_itself(path)
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, error) from None
    saved, checksum = about.get("run", ""), about.get("checksum", "missing")
    if checksum != _checksum(saved, arrays):
        raise damaged(path, f"its checksum is {checksum[:8]}")
    _require_same_run(path, saved, run)
    return _history(path, arrays), arrays


def _require_same_run(path: Path, saved: str, run: dict[str, Any]) -> None:
    refuse_depth(saved, path, _REMEDY)
    try:
        found = json.loads(saved)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(found, dict):
        raise damaged(path, "it does not say of which run it is")
    other = [key for key, value in run.items() if found.get(key) != value]
    if found.keys() - run.keys():
        other.append("settings that are not known here")
    if other:
        raise UsageError(
            f"{path} is the checkpoint of another run (it differs in: {', '.join(other)}); "
            "delete it, or choose another folder"
        )


def _history(path: Path, arrays: dict[str, np.ndarray]) -> History:
    """The history, which is taken out of the arrays, if it is one that a run can have."""
    names = "losses", "seconds", "evaluations"
    if missing := [name for name in names if name not in arrays]:
        raise damaged(path, f"it has no {missing[0]}")
    losses, seconds, evaluations = (arrays.pop(name) for name in names)
    done = losses.size
    if not np.array_equal(arrays.get("t", -1), done):
        raise damaged(path, f"it has {done} losses, but not {done} steps")
    shapes = (done,), (done,), (*evaluations.shape[:1], 2)
    for name, array, shape in zip(names, (losses, seconds, evaluations), shapes, strict=True):
        if array.dtype != np.float64 or array.shape != shape:
            raise damaged(path, f"its {name} are {array.dtype} {array.shape}, of {done} steps")
    if not np.isfinite(losses).all() or not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise damaged(path, "it has losses or seconds that no step has")
    at = evaluations[:, 0]
    if not np.isin(at, range(done + 1)).all() or (np.diff(at) <= 0).any():
        raise damaged(path, f"it has evaluations that are not of its {done} steps, in their order")
    pairs = [(int(step), value) for step, value in evaluations.tolist()]
    return History(losses.tolist(), pairs, seconds.tolist())


def damaged(path: Path, cause: object) -> UsageError:
    """A library's error is cut, as it may quote the file itself."""
    why = shorten(str(cause), 120, placeholder=" …")
    return UsageError(f"{path} is incomplete or damaged ({why}); {_REMEDY}")


def _checksum(run: str, arrays: Mapping[str, np.ndarray]) -> str:
    crc = zlib.crc32(run.encode())
    for key in sorted(arrays):
        array = arrays[key]
        crc = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return f"{crc:08x}"
