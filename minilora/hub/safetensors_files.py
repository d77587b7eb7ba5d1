"""Files of numbers, safetensors: what is in them, checked before anything is made of it.

Such a file is a JSON header (name, dtype, shape and offsets of each tensor), then the bytes
of the tensors. Large models come in several files, shards, and an index that says which tensor is
in which. Nothing is ever pickled: opening a pickle can run any code.
Source: the description of the format in huggingface/safetensors.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import numpy as np

from minilora.system.errors import UsageError
from minilora.system.files import mapped
from minilora.system.readers import (
    LARGEST_TABLE,
    damaged,
    parse_json,
    read_json,
    require_the_file_itself,
)
from minilora.system.schemas import NOT_EMPTY, shown

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
MODEL_FILES = ("config.json", "model.safetensors")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_AGAIN = "copy or download all files again"
_LONGEST_HEADER = 4_000_000  # bytes, of some 40,000 tensors: reading it takes ten times as much
_LONGEST_NAME = 200
_MOST_DIMENSIONS = 8
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy has no bfloat16
_CONSTANTS = re.compile(r"(.*\.)?(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)")
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module)\.")  # of torch.compile and DataParallel


class _Index(TypedDict):
    weight_map: Annotated[dict[str, str], NOT_EMPTY]  # which file has a tensor


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
            stored = converted(stored, np.float32, what)
        array = np.asarray(stored, np.float32, order="C")
        return array if array.flags.aligned else array.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numbers(), dtype, copy=copy)


StoredTensors = dict[str, Stored]
T = TypeVar("T", Stored, np.ndarray)


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


def converted(array: np.ndarray, dtype: Any, what: str) -> np.ndarray:
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
