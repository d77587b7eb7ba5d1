"""A folder's two files, its config and its weights: saved and loaded so that both are of one save.

A save says beforehand what it is about to do, as it can be killed between the two; whoever saves
to the same folder waits; and who loads looks whether anything has changed meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from minilora.hub.safetensors_files import (
    ADAPTER_FILES,
    MODEL_FILES,
    Arrays,
    StoredTensors,
    converted,
    stored_tensors,
)
from minilora.system.errors import UsageError
from minilora.system.files import explained, write_atomically
from minilora.system.readers import read_json
from minilora.system.scratch import alone_in

R = TypeVar("R")
_MOST_READS = 1000  # of a folder that changes each time


def write_folder(
    folder: Path, names: tuple[str, str], config: dict[str, Any], tensors: Arrays, dtype: Any
) -> None:
    """Write config and weights, both or neither, and one save after the other.

    Two files cannot be renamed at once, and a process can be killed between the two. So where both
    replace another save, the new config is first written to a hidden file, with the checksums of
    the new weights and of the old config: as long as these two lie together, it is the hidden one
    that read_config_file reads. At the end it is removed.
    """
    from safetensors.numpy import save

    text = _text_of(config)
    stored = {key: converted(array, dtype, key) for key, array in tensors.items()}
    content = save(stored, {"format": "pt"})
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder to save in")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        _write_both(folder / names[0], text, folder / names[1], content)


def read_config_file(folder: Path, names: tuple[str, str]) -> dict[str, Any]:
    """What the config of a folder says. Raises what require_files and read_json raise."""
    return of_one_save(folder, names, lambda: _read_config(folder, names))


def read_adapter_files(folder: Path) -> tuple[dict[str, Any], StoredTensors]:
    """What the config of an adapter says, and its tensors. Raises what read_config_file and
    stored_tensors raise."""

    def read() -> tuple[dict[str, Any], StoredTensors]:
        return _read_config(folder, ADAPTER_FILES), stored_tensors(folder / ADAPTER_FILES[1])

    return of_one_save(folder, ADAPTER_FILES, read)


def of_one_save(folder: Path, names: tuple[str, str], read: Callable[[], R]) -> R:
    """What read() returns of the two files: of one save, though another may replace them meanwhile.

    Raises what read() raises, and UsageError if one save follows the other all the time."""
    for _ in range(_MOST_READS):
        before = _versions(folder, names)
        try:
            found = read()
        except (OSError, UsageError):
            if _versions(folder, names) == before:
                raise
        else:
            if _versions(folder, names) == before:
                return found
    raise UsageError(f"{folder} is being saved to all the time; load it once that is over")


def require_files(folder: Path, names: tuple[str, str]) -> Path:
    """The path of the config, once both files are known to be there. Raises FileNotFoundError."""
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is a file; give the folder that holds {names[0]}")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    weights = [names[1], f"{names[1]}.index.json"]
    missing = [] if (folder / names[0]).is_file() else [names[0]]
    missing += [] if any((folder / w).is_file() for w in weights) else [names[1]]
    hint = ""
    pickles = sorted(p.name for p in folder.glob("*model*.bin"))
    if pickles and names[1] in missing:
        hint = (
            f", and its {', '.join(pickles)} is a pickle, which is not opened as it can run any "
            "code: load it in transformers or PEFT and save it as safetensors with save_pretrained"
        )
    elif inner := sorted(p.parent.name for p in folder.glob(f"*/{names[0]}")):
        hint = f"; but these sub-folders of it have: {', '.join(inner)}"
    elif names == MODEL_FILES and (folder / ADAPTER_FILES[0]).is_file():
        hint = "; it is an adapter: load its model, then load_adapter(model, folder)"
    elif names == ADAPTER_FILES and (folder / MODEL_FILES[0]).is_file():
        hint = "; it is a model: load_model(folder)"
    if missing:
        raise FileNotFoundError(f"{folder} has no {' and no '.join(missing)}{hint}")
    return folder / names[0]


def _write_both(config_file: Path, text: str, weights: Path, content: bytes) -> None:
    upcoming, is_new = _upcoming(config_file), not (config_file.exists() or weights.exists())
    if (interrupted := _upcoming_config(config_file, weights)) is not None:  # its save ends first
        write_atomically(config_file, lambda p: p.write_text(_text_of(interrupted), "utf-8"))
    old = b""
    with suppress(OSError):  # whom it is hidden from cannot load it either
        old = config_file.read_bytes()
    if old and old != text.encode():
        said = dict(config=json.loads(text), weights=sha256(content).hexdigest())
        said |= dict(old=sha256(old).hexdigest())
        write_atomically(
            upcoming, lambda p: p.write_text(json.dumps(said, sort_keys=True), "utf-8")
        )

    def write_both(path: Path) -> None:
        path.write_text(text, encoding="utf-8")
        write_atomically(weights, lambda p: p.write_bytes(content))

    try:
        write_atomically(config_file, write_both)
    except BaseException:
        if is_new:
            weights.unlink(missing_ok=True)
        if _upcoming_config(config_file, weights) is None:
            upcoming.unlink(missing_ok=True)
        raise
    upcoming.unlink(missing_ok=True)


def _text_of(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _versions(folder: Path, names: tuple[str, str]) -> list[tuple[int, ...]]:
    """What tells one version of each file from the next."""
    versions: list[tuple[int, ...]] = []
    for file in (folder / names[0], folder / names[1], _upcoming(folder / names[0])):
        try:
            about = os.stat(file)
            versions.append((about.st_ino, about.st_mtime_ns, about.st_size))
        except OSError:
            versions.append(())
    return versions


def _read_config(folder: Path, names: tuple[str, str]) -> dict[str, Any]:
    config_file = require_files(folder, names)
    upcoming = _upcoming_config(config_file, folder / names[1])
    return read_json(config_file) if upcoming is None else upcoming


class _Upcoming(TypedDict):
    config: dict[str, Any]
    weights: str
    old: str


def _upcoming(config_file: Path) -> Path:
    return config_file.with_name(f".{config_file.name}.upcoming")


def _upcoming_config(config_file: Path, weights: Path) -> dict[str, Any] | None:
    """What a save that was killed would have written to the config, if it wrote the weights."""
    if not _upcoming(config_file).is_file():
        return None
    said = read_json(_upcoming(config_file), _Upcoming)
    for path, checksum in ((config_file, said["old"]), (weights, said["weights"])):
        if not path.is_file() or _checksum(path) != checksum:
            return None
    return said["config"]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
