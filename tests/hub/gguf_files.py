"""Writes small GGUF files, whole ones and such as nobody should trust."""

import struct

import numpy as np

NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q6_K": 14, "BF16": 30}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(v) -> bytes:
    """A value with its kind before it."""
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<Iq", 11, v) if v < 0 else struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    inner = 8 if isinstance(v[0], str) else 4
    items = [text(x) if inner == 8 else struct.pack("<I", x) for x in v]
    return struct.pack("<IIQ", 9, inner, len(v)) + b"".join(items)


def header(name: str, shape, kind, offset: int) -> bytes:
    """shape as NumPy has it; the file has it the other way round."""
    dims = struct.pack(f"<{len(shape)}Q", *reversed(shape))
    number = NUMBERS.get(kind, kind)
    return text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", number, offset)


def gguf(metadata: dict, tensors: dict, *, version=3, n_tensors=None, n_keys=None) -> bytes:
    """A file; tensors: name -> (kind, shape, raw bytes)."""
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(metadata) if n_keys is None else n_keys,
    )
    out = b"GGUF" + struct.pack("<IQQ", version, *counts)
    out += b"".join(text(k) + value(v) for k, v in metadata.items())
    offset, data = 0, b""
    for name, (kind, shape, raw) in tensors.items():
        out += header(name, shape, kind, offset)
        data += raw + b"\0" * (-len(raw) % 32)
        offset = len(data)
    return out + b"\0" * (-len(out) % 32) + data


def random_blocks(kind: str, rows: int, columns: int, rng) -> bytes:
    """Random numbers as blocks of this kind; small ones, so that a model of them can run."""
    if kind in ("F32", "F16"):
        dtype = "<f4" if kind == "F32" else "<f2"
        return (rng.standard_normal((rows, columns)) * 0.1).astype(dtype).tobytes()
    if kind == "BF16":
        x = (rng.standard_normal((rows, columns)) * 0.1).astype("<f4")
        return (x.view("<u4") >> 16).astype("<u2").tobytes()
    blocks = []
    for _ in range(rows * columns // 32):
        d = np.float16(rng.uniform(0.001, 0.01)).tobytes()
        m = np.float16(rng.uniform(-0.1, 0)).tobytes() if kind == "Q4_1" else b""
        blocks.append(d + m + rng.bytes(32 if kind == "Q8_0" else 16))
    return b"".join(blocks)
