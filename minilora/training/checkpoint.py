"""What a run leaves on disk, so that one that was cut off goes on as if it had not been.

The file holds the optimizer's arrays, the history, what identifies the run, and a checksum of it
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minilora.lora import adapters
from minilora.system.errors import UsageError
from minilora.system.files import make_folder, write_atomically
from minilora.transformer import Transformer


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
    model: Transformer, settings: dict[str, Any], ids: np.ndarray, targets: np.ndarray
) -> dict[str, Any]:
    """What makes a run this run: its settings, the model it starts from and its first batch. A
    checkpoint is used only where all of it agrees."""
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
    }


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """The path of a file that can be written later. Raises ValueError where it cannot be one."""
    file = Path(path)
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
    about = {"run": json.dumps(run), "history": json.dumps(asdict(history))}
    about["checksum"] = _checksum(about, state)
    make_folder(path.parent)
    write_atomically(path, lambda temporary: _save(state, temporary, about))


def _save(state: Mapping[str, np.ndarray], path: Path, about: dict[str, str]) -> None:
    """Straight from the arrays, of which no copy is made. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(state), path, about)
    except SafetensorError as error:  # the system's error is a part of its text
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from None


def read_checkpoint(path: Path, run: dict[str, Any]) -> tuple[History, dict[str, np.ndarray]]:
    """The history and the optimizer's state in a checkpoint of this very run.

    Raises ValueError if it is of another run, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        found, history = json.loads(about["run"]), json.loads(about["history"])
        history["evaluations"] = [tuple(pair) for pair in history["evaluations"]]
        history = History(**history)
        checksum = about.get("checksum", "none, as before minilora had any")
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, error) from None
    other = [key for key, value in run.items() if found.get(key) != value]
    if other:
        raise UsageError(
            f"{path} is the checkpoint of another run (it differs in: {', '.join(other)}); "
            "delete it, or choose another folder"
        )
    if checksum != _checksum(about, state):
        raise damaged(path, f"its checksum is {checksum}")
    return history, state


def damaged(path: Path, cause: object) -> UsageError:
    return UsageError(f"{path} is incomplete or damaged ({cause}); delete it to start again")


def _checksum(about: Mapping[str, str], state: Mapping[str, np.ndarray]) -> str:
    crc = zlib.crc32((about["run"] + about["history"]).encode())
    for key in sorted(state):
        array = state[key]
        crc = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return f"{crc:08x}"
