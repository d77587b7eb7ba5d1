"""Reading a .gguf file, llama.cpp's format: metadata, a list of tensors, then the tensors' bytes.

The file is mapped, not read: a tensor is a view of it, still in its blocks of 4 or 8 bits
(gguf_blocks.py makes numbers of them). Every count and length is checked against the bytes that
are left before it is used, so a damaged file can neither ask for memory nor point outside.
Source: docs/gguf.md in ggml-org/ggml.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilora.quantization.gguf_blocks import BLOCKS
from minilora.system.errors import UsageError, brief
from minilora.system.files import mapped, usable_path
from minilora.system.readers import damaged, require_the_file_itself

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
_LONGEST_NAME = 200
_MOST_KEYS, _MOST_TENSORS = 5_000, 50_000
_MOST_ITEMS = 2_000_000  # of one list: the largest vocabularies have a quarter of a million words
_KINDS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16",
}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a file: its kind ("Q4_1"), its shape as NumPy says it, (d_out, d_in) of a
    matrix, and its bytes, uint8 (d_out, bytes of a row)."""

    kind: str
    shape: tuple[int, ...]
    blocks: np.ndarray


@dataclass(frozen=True)
class GgufFile:
    """What a file says of itself, by key, and its tensors, by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: str | Path, *, lists: bool = True) -> GgufFile:
    """Metadata and tensors of a GGUF file of version 2 or 3. Nothing of the model's size is read.

    lists=False: without the lists, which are the tokenizer's vocabulary and large.

    Raises FileNotFoundError, or ValueError for a file that is damaged or of another format, and
    for a tensor in blocks that are not supported.
    """
    path = usable_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    require_the_file_itself(path)
    if path.stat().st_size < 24:
        raise damaged(path, "it is too short for a GGUF file")
    reader = _Reader(path, lists)
    if reader.take(4).tobytes() != b"GGUF":
        raise UsageError(f"{path} is no GGUF file: it does not begin with GGUF")
    version = reader.number("<u4")
    if version not in (2, 3):
        raise UsageError(f"{path} is GGUF of version {version}; versions 2 and 3 are supported")
    n_tensors, n_keys = reader.number("<u8"), reader.number("<u8")
    metadata = {}
    for _ in range(reader.possible(n_keys, 13, _MOST_KEYS)):
        key = reader.name()
        if key in metadata:
            raise damaged(path, f"{key} stands there twice")
        metadata[key] = reader.value(reader.number("<u4"))
    headers = [reader.header() for _ in range(reader.possible(n_tensors, 32, _MOST_TENSORS))]
    return GgufFile(path, metadata, _tensors(reader, headers, metadata))


class _Reader:
    """The mapped bytes, and how far they are read."""

    def __init__(self, path: Path, lists: bool) -> None:
        self.path, self.at, self.lists = path, 0, lists
        self.bytes = mapped(path)

    def take(self, n: int) -> np.ndarray:
        """The next n bytes."""
        if n > len(self.bytes) - self.at:
            raise damaged(self.path, f"it ends within what begins at byte {self.at}")
        self.at += n
        return self.bytes[self.at - n : self.at]

    def possible(self, count: int, least_bytes: int, most: int) -> int:
        """A count, once so many things of at least so many bytes fit in what is left."""
        if count > most or count * least_bytes > len(self.bytes) - self.at:
            raise damaged(self.path, f"{count} entries do not fit after byte {self.at}")
        return count

    def number(self, kind: str) -> Any:
        return self.take(np.dtype(kind).itemsize).view(kind)[0].item()

    def text(self) -> str:
        start = self.at
        try:
            return self.take(self.number("<u8")).tobytes().decode()
        except UnicodeDecodeError:
            raise damaged(self.path, f"the text at byte {start} is no UTF-8") from None

    def name(self) -> str:
        """The name of a tensor, or the key of a value."""
        start, name = self.at, self.text()
        if not (name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
            raise damaged(self.path, f"at byte {start} stands {brief(name)} for a name")
        return name

    def value(self, kind: int) -> Any:
        """A value of the metadata: a number, a text, or a list of one of them."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(self._scalar(kind))
        inner, n = self.number("<u4"), self.number("<u8")
        if inner == _STRING:
            return self._texts(self.possible(n, 8, _MOST_ITEMS))
        scalar = self._scalar(inner)
        size = np.dtype(scalar).itemsize
        items = self.take(self.possible(n, size, _MOST_ITEMS) * size).view(scalar)
        return items.tolist() if self.lists else []

    def _texts(self, n: int) -> list[str]:
        """n texts, as vocabularies have them: faster than n times text()."""
        start, whole = self.at, self.bytes.data
        at, found = start, []
        try:
            for _ in range(n):
                (length,) = struct.unpack_from("<Q", whole, at)
                at += 8 + length
                if self.lists:
                    found.append(str(whole[at - length : at], "utf-8"))
        except (struct.error, UnicodeDecodeError, OverflowError):
            raise damaged(self.path, f"the list of texts at byte {start} is cut off") from None
        self.take(at - start)
        return found

    def _scalar(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise damaged(self.path, f"before byte {self.at} stands a value of kind {kind}")
        return _SCALARS[kind]

    def header(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, kind and offset of a tensor."""
        name, n_dims = self.name(), self.number("<u4")
        if not 1 <= n_dims <= 4:
            raise damaged(self.path, f"{name} has {n_dims} dimensions")
        shape = tuple(self.number("<u8") for _ in range(n_dims))[::-1]
        return name, shape, self.number("<u4"), self.number("<u8")


def _tensors(
    reader: _Reader, headers: list[tuple[str, tuple[int, ...], int, int]], metadata: dict[str, Any]
) -> dict[str, GgufTensor]:
    path, alignment = reader.path, metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 4096 or alignment & (alignment - 1):
        raise damaged(path, f"general.alignment is {brief(alignment)}")
    start = -(-reader.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    expected = 0
    for name, shape, number, offset in headers:
        kind = _KINDS.get(number, f"number {number}")
        if kind not in BLOCKS:
            raise UsageError(
                f"{name} in {path} is stored as {kind}; supported: {', '.join(BLOCKS)}, to "
                "which llama.cpp's llama-quantize converts"
            )
        if name in tensors:
            raise damaged(path, f"two tensors are called {name}")
        per_block, block_bytes = BLOCKS[kind]
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if not rows * columns or columns % per_block:
            raise damaged(path, f"{name} is {shape}, which is no whole number of blocks")
        row_bytes = columns // per_block * block_bytes
        at = start + offset
        if at + rows * row_bytes > len(reader.bytes):
            raise damaged(path, f"{name} does not lie within the file")
        if offset != expected:
            raise damaged(path, f"{name} does not begin where the tensor before it ends")
        expected = -(-(offset + rows * row_bytes) // alignment) * alignment
        view = reader.bytes[at : at + rows * row_bytes].reshape(rows, row_bytes)
        tensors[name] = GgufTensor(kind, shape, view)
    return tensors
