"""The two files of a folder: a JSON with the configuration and a safetensors with the numbers.

A safetensors file is a JSON header (name, dtype, shape and offsets of each tensor), then the bytes
of the tensors. Large models come in several files, shards, and an index that says which tensor is
in which. Nothing is ever pickled: opening a pickle can run any code.
Source: the description of the format in huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import numpy as np

from minilora.system.errors import UsageError
from minilora.system.files import explained, mapped, write_atomically
from minilora.system.readers import (
    LARGEST_TABLE,
    damaged,
    parse_json,
    read_json,
    require_the_file_itself,
)
from minilora.system.schemas import NOT_EMPTY, shown
from minilora.system.scratch import alone_in

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
MODEL_FILES = ("config.json", "model.safetensors")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_AGAIN = "copy or download all files again"
_LONGEST_HEADER = 4_000_000  # bytes, of some 40,000 tensors: reading it takes ten times as much
_LONGEST_NAME = 200
_MOST_DIMENSIONS = 8
_MOST_READS = 1000  # of a folder that changes each time
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy has no bfloat16
_CONSTANTS = re.compile(r"(.*\.)?(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)")
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module)\.")  # of torch.compile and DataParallel


class _Index(TypedDict):
    weight_map: Annotated[dict[str, str], NOT_EMPTY]  # which file has a tensor


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


@dataclass(frozen=True)
class Stored:
    """One tensor of a file before it is read: its name, its kind ("BF16"), its shape, its bytes.

    np.asarray of it, or numbers(), are its numbers in float32: what is stored as float32 is a view
    of the mapped file, which takes memory only once it is used or changed."""

    path: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    raw: np.ndarray

    def numbers(self, *, finite: bool = True) -> np.ndarray:
        """Raises ValueError for what is no float and, unless finite=False, for NaN and infinity."""
        what = f"{self.name} in {self.path}"
        if self.kind not in _FLOATS:
            raise UsageError(
                f"{what} is stored as {self.kind}, which is not supported; save it as float32"
            )
        stored = self.raw.view(_FLOATS[self.kind])
        if self.kind == "BF16":  # the upper half of a float32
            wide = stored.astype(np.uint32)
            wide <<= 16
            stored = wide.view(np.float32)
        stored = stored.reshape(self.shape)
        if finite:
            stored = _converted(stored, np.float32, what)
        array = np.asarray(stored, np.float32, order="C")
        return array if array.flags.aligned else array.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numbers(), dtype, copy=copy)


StoredTensors = dict[str, Stored]
T = TypeVar("T", Stored, np.ndarray)
R = TypeVar("R")


def stored_weights(folder: Path) -> StoredTensors:
    """All tensors of a model, from one file or from its shards, as stored_tensors gives them.

    Raises ValueError for an index that contradicts its shards."""
    if (folder / MODEL_FILES[1]).is_file():
        return stored_tensors(folder / MODEL_FILES[1])
    index = folder / f"{MODEL_FILES[1]}.index.json"
    places = read_json(index, _Index, LARGEST_TABLE)["weight_map"]
    for key, shard in places.items():
        if Path(shard).name != shard or not re.fullmatch(r"[^\\]+\.safetensors", shard):
            raise UsageError(
                f"{index} places {shown(key)} in {shown(shard)}, no file beside it; {_AGAIN}"
            )
    tensors: StoredTensors = {}
    for shard in sorted(set(places.values())):
        for key, one in _in_file(folder / shard).items():
            if key not in places:
                raise UsageError(f"{index} does not name {key}, which is in {one.path}; {_AGAIN}")
            if key in tensors and not equal(tensors[key], one):
                raise UsageError(
                    f"{key} in {tensors[key].path} is not what it is in {one.path}; {_AGAIN}"
                )
            if key not in tensors or places[key] == shard:
                tensors[key] = one
    for key, shard in places.items():
        if key not in tensors or tensors[key].path.name != shard:
            raise UsageError(f"{index} places {shown(key)} in {shard}, which lacks it; {_AGAIN}")
    return _usable(tensors)


def stored_tensors(path: Path) -> StoredTensors:
    """All tensors of a file, without the constants that old files hold, and without the wrappers'
    part of names (`_orig_mod.`, `module.`). Only the header is read.

    Raises FileNotFoundError, or ValueError for damage and for two tensors of one name that differ.
    """
    return _usable(_in_file(path))


def read_adapter_files(folder: Path) -> tuple[dict[str, Any], StoredTensors]:
    """What the config of an adapter says, and its tensors. Raises what read_config_file and
    stored_tensors raise."""

    def read() -> tuple[dict[str, Any], StoredTensors]:
        return _read_config(folder, ADAPTER_FILES), stored_tensors(folder / ADAPTER_FILES[1])

    return of_one_save(folder, ADAPTER_FILES, read)


def read_safetensors(path: Path) -> Arrays:
    """The numbers of all tensors of a file in float32. Raises what stored_tensors and
    Stored.numbers raise."""
    return {key: one.numbers() for key, one in stored_tensors(path).items()}


def _usable(tensors: StoredTensors) -> StoredTensors:
    floats = {key: one for key, one in tensors.items() if not _CONSTANTS.fullmatch(key)}
    return renamed(floats, lambda key: _WRAPPERS.sub("", key))


def _in_file(path: Path) -> StoredTensors:
    """The tensors of a file under the names that stand there."""
    entries, start = _header(path)
    entries.pop("__metadata__", None)
    for key, about in entries.items():
        if not (key.isprintable() and 0 < len(key) <= _LONGEST_NAME):
            raise damaged(path, f"{shown(key)} is no name of a tensor")
        if len(about["shape"]) > _MOST_DIMENSIONS:
            raise damaged(path, f"{key} has {len(about['shape'])} dimensions")
    raw, tensors = mapped(path)[start:], {}
    for key, about in entries.items():
        begin, end = about["data_offsets"]
        tensors[key] = Stored(path, key, about["dtype"], tuple(about["shape"]), raw[begin:end])
    return tensors


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file, once it and the bytes are known to fit each other, and its end."""
    from safetensors import SafetensorError, safe_open

    require_the_file_itself(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise damaged(path, f"a header of {length:,} bytes")
        header = file.read(length)
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise damaged(path, textwrap.shorten(str(error), 150)) from None
    return parse_json(header.decode(), path), 8 + length


def renamed(tensors: Mapping[str, T], new_name: Callable[[str], str]) -> dict[str, T]:
    """The same tensors under new names. Raises ValueError if two that differ would get one name."""
    found: dict[str, T] = {}
    first: dict[str, str] = {}
    for key, tensor in tensors.items():
        name = new_name(key)
        if name in found and not equal(found[name], tensor):
            where = f" in {tensor.path}" if isinstance(tensor, Stored) else ""
            raise UsageError(
                f"there are two different {name}{where}, {first[name]} and {key}; delete one"
            )
        found.setdefault(name, tensor)
        first.setdefault(name, key)
    return found


def equal(a: Stored | np.ndarray, b: Stored | np.ndarray) -> bool:
    """Whether two tensors hold the same numbers."""
    return a.shape == b.shape and np.array_equal(np.asarray(a), np.asarray(b))


def _converted(array: np.ndarray, dtype: Any, what: str) -> np.ndarray:
    """The array in this dtype. Raises ValueError for NaN, infinity, and numbers beyond it."""
    with np.errstate(over="ignore"):
        result = np.asarray(array, dtype, order="C")
    if not _is_finite(result):
        if not _is_finite(array):
            raise UsageError(f"{what} holds NaN or infinity; use an earlier checkpoint")
        largest, small = np.finfo(dtype).max, np.dtype(dtype) == np.float16
        remedy = "save as float32" if small else "no float32 can hold that"
        raise UsageError(f"{what} overflows {np.dtype(dtype)} (at most {largest:.6g}); {remedy}")
    return result


def _is_finite(array: np.ndarray) -> bool:
    """Whether no number is NaN or infinite, without an array of answers."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def require_fit(found: Mapping[str, Any], shapes: Shapes, what: str, remedy: str) -> None:
    """Raise ValueError, which says `what` is wrong and the remedy, unless keys and shapes fit."""
    wrong = [f"missing {key} {shape}" for key, shape in shapes.items() if key not in found]
    wrong += [f"unexpected {key} {a.shape}" for key, a in found.items() if key not in shapes]
    wrong += [
        f"{key} is {found[key].shape} where {shape} is needed"
        for key, shape in shapes.items()
        if key in found and found[key].shape != shape
    ]
    if wrong:
        raise UsageError(f"{what}: {first_two(wrong)}; {remedy}")


def first_two(items: Sequence[str]) -> str:
    """The items, or the first two of them and how many more there are; the end of a long one is
    left out."""
    text = ", ".join(item if len(item) <= 100 else f"{item[:99]}…" for item in items[:2])
    return f"{text} and {len(items) - 2} more" if len(items) > 2 else text


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
    stored = {key: _converted(array, dtype, key) for key, array in tensors.items()}
    content = save(stored, {"format": "pt"})
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder to save in")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        _write_both(folder / names[0], text, folder / names[1], content)


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


def read_config_file(folder: Path, names: tuple[str, str]) -> dict[str, Any]:
    """What the config of a folder says. Raises what require_files and read_json raise."""
    return of_one_save(folder, names, lambda: _read_config(folder, names))


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
