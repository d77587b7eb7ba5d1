"""What a file says, read as its format's description has it and by nothing of minilora: the judge
of the suite of damaged files.

Each reader is as short as the format allows and trusts nothing: Unreadable says that the bytes are
no such file, and then nobody may load them.
Sources: the description of the format in huggingface/safetensors; docs/gguf.md in ggml-org/ggml and
ggml-quants.c for its blocks; RFC 8259 for JSON.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Unreadable(Exception):  # noqa: N818
    """The bytes are no such file, or say what cannot be meant."""


def need(holds: object, why: str) -> None:
    if not holds:
        raise Unreadable(why)


def plain_json(raw: bytes) -> Any:
    """Any JSON value; a key that is there twice says nothing."""
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    need(len(found) == len(pairs), "a key is there twice")
    return found


def plain_object(raw: bytes) -> dict[str, Any]:
    found = plain_json(raw)
    need(isinstance(found, dict), "no JSON object")
    return found


def is_int(value: Any, low: int = 1, high: float = math.inf) -> bool:
    return type(value) is int and low <= value <= high


def is_float(value: Any, low: float, high: float) -> bool:
    """A number above low and at most high."""
    return type(value) in (int, float) and low < value <= high


def widened(kind: str, raw: bytes) -> np.ndarray:
    """Stored floats as float32."""
    stored = np.frombuffer(raw, FLOATS[kind])
    if kind == "BF16":
        return (stored.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        return stored.astype("<f4")


def safetensors_header(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, and the bytes after it."""
    need(len(raw) >= 8, "too short")
    length = int.from_bytes(raw[:8], "little")
    need(length <= len(raw) - 8, "the header is longer than the file")
    return plain_object(raw[8 : 8 + length]), raw[8 + length :]


def plain_safetensors(raw: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors as float32, and the metadata. Every byte belongs to one tensor."""
    header, data = safetensors_header(raw)
    about = header.pop("__metadata__", {})
    need(isinstance(about, dict), "metadata is no object")
    need(all(isinstance(v, str) for v in about.values()), "metadata holds more than texts")
    tensors, places = {}, []
    for name, entry in header.items():
        need(isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys(), name)
        shape, offsets = entry["shape"], entry["data_offsets"]
        kind = entry["dtype"]
        need(isinstance(kind, str) and kind in FLOATS, f"{name} is {kind!r:.40}")
        need(isinstance(shape, list) and all(is_int(n, 0) for n in shape), f"{name}: {shape!r}")
        need(isinstance(offsets, list) and len(offsets) == 2, f"{name}: {offsets!r}")
        need(all(is_int(n, 0, len(data)) for n in offsets), f"{name}: {offsets!r}")
        size = math.prod(shape) * np.dtype(FLOATS[kind]).itemsize
        need(offsets[1] - offsets[0] == size, f"{name} is {shape} in {offsets}")
        tensors[name] = widened(kind, data[slice(*offsets)]).reshape(shape)
        places.append(offsets)
    ends = [0, *(end for _, end in sorted(places))]
    need([start for start, _ in sorted(places)] == ends[:-1], "tensors overlap")
    need(ends[-1] == len(data), "bytes that belong to no tensor")
    return tensors, about


@dataclass
class Gguf:
    """What a .gguf file says; and for whoever damages it, where its numbers stand (place, struct's
    letter) and the stretches that its entries and tensor headers take."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = field(default_factory=dict)
    numbers: list[tuple[int, str]] = field(default_factory=list)
    entries: list[tuple[int, int]] = field(default_factory=list)
    headers: list[tuple[int, int]] = field(default_factory=list)
    data: int = 0


_LETTERS = dict(zip([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12], "BbHhIifBQqd", strict=True))
# Number of the kind: its name, numbers in a block, bytes of a block.
_BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    8: ("Q8_0", 32, 34), 30: ("BF16", 1, 2),
}  # fmt: skip


def plain_gguf(raw: bytes) -> Gguf:
    found, at = Gguf(), 4

    def number(letter: str) -> Any:
        nonlocal at
        need(at + struct.calcsize(letter) <= len(raw), "cut off")
        found.numbers.append((at, letter))
        (value,) = struct.unpack_from("<" + letter, raw, at)
        at += struct.calcsize(letter)
        return value

    def text() -> str:
        nonlocal at
        length = number("Q")
        need(at + length <= len(raw), "cut off")
        at += length
        try:
            return raw[at - length : at].decode()
        except UnicodeDecodeError:
            raise Unreadable("no UTF-8") from None

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            inner, n = number("I"), number("Q")
            need(n <= len(raw), "cut off")
            return [value(inner) for _ in range(n)]
        need(kind in _LETTERS, f"kind {kind}")
        return bool(number("B")) if kind == 7 else number(_LETTERS[kind])

    need(raw[:4] == b"GGUF" and number("I") in (2, 3), "no GGUF")
    n_tensors, n_keys = number("Q"), number("Q")
    need(max(n_tensors, n_keys) <= len(raw), "cut off")
    for _ in range(n_keys):
        start, key = at, text()
        need(key not in found.metadata, f"{key} is there twice")
        found.metadata[key] = value(number("I"))
        found.entries.append((start, at))
    listed = []
    for _ in range(n_tensors):
        start, name, dims = at, text(), number("I")
        need(1 <= dims <= 4, f"{name} has {dims} dimensions")
        shape = tuple(number("Q") for _ in range(dims))[::-1]
        listed.append((name, shape, number("I"), number("Q")))
        found.headers.append((start, at))
    alignment = found.metadata.get("general.alignment", 32)
    need(is_int(alignment), "alignment")
    found.data = -(-at // alignment) * alignment
    next_ = 0
    for name, shape, kind, offset in listed:
        need(kind in _BLOCKS and name not in found.tensors, name)
        need(offset == next_, f"{name} does not lie where the one before it ends")
        word, per_block, block_bytes = _BLOCKS[kind]
        need(shape[-1] % per_block == 0 and math.prod(shape), name)
        start = found.data + offset
        end = start + math.prod(shape) // per_block * block_bytes
        need(end <= len(raw), f"{name} lies beyond the end")
        next_ = -(-(end - found.data) // alignment) * alignment
        found.tensors[name] = (word, shape, raw[start:end])
    return found


def unpacked(kind: str, shape: tuple[int, ...], raw: bytes) -> np.ndarray:
    """The numbers in a tensor's bytes, float32."""
    if kind in FLOATS:
        return widened(kind, raw).reshape(shape)
    with np.errstate(invalid="ignore", over="ignore"):
        return _from_blocks(kind, raw).reshape(shape)


def _from_blocks(kind: str, raw: bytes) -> np.ndarray:
    block = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[kind]
    rows = np.frombuffer(raw, np.uint8).reshape(-1, block)
    d = np.ascontiguousarray(rows[:, :2]).view("<f2").astype("<f4")  # (blocks, 1)
    if kind == "Q8_0":
        return (d * np.ascontiguousarray(rows[:, 2:]).view("i1")).astype("<f4")
    packed = rows[:, block - 16 :]
    fours = np.concatenate([packed & 15, packed >> 4], axis=1).astype("<f4")  # (blocks, 32)
    if kind == "Q4_0":
        return d * (fours - 8)
    m = np.ascontiguousarray(rows[:, 2:4]).view("<f2").astype("<f4")
    return d * fours + m
