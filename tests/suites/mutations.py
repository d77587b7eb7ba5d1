"""Ways to damage a file: its bytes, or what they say in JSON, TOML, safetensors and GGUF.

A folder is a dict of names and bytes. In the place of bytes may stand the name of what is no file:
"missing", "a folder", "a pipe", "a broken link", "/dev/zero". `damaged` changes one file of a
folder in one way, and says how.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plain_readers import Unreadable, need, plain_gguf, safetensors_header

Rng = np.random.Generator
Files = dict[str, Any]  # name -> bytes, or what lies there instead
Change = Callable[[Rng, bytes], tuple[bytes, str]]

NO_FILES = ("missing", "a folder", "a pipe", "a broken link", "/dev/zero")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
PAGE = b"<!DOCTYPE html><html><body>404: there is no such file</body></html>"
NASTY = [
    "null", "true", "false", '""', '"x"', "-1", "0", "1", "2", "0.5", "-0.0", "1e-320", "1e400",
    "1" + "0" * 400, "9" * 5000, "NaN", "-Infinity", "1000000000000", "9223372036854775808", "[]",
    "{}", "[null]", '[["x"]]', '{"x": 1}', '"\\ud800"', '"\\u0000"', '"(a+)+$"',
    '"' + "x" * 5000 + '"',
    "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000,
]  # fmt: skip
NASTY_TOML = [
    "true", '""', '"x"', "-1", "0", "7", "1e400", "1" + "0" * 400, "nan", "-inf", "1000000000000",
    "[]", "{}", '["x"]', "2026-01-01", "[" * 100_000 + "]" * 100_000, '"""', "[[1]]", "{a = 1}",
]  # fmt: skip


def pick(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def damaged(rng: Rng, files: Mapping[str, bytes], other: Mapping[str, bytes]) -> tuple[Files, str]:
    """A copy of the folder with one damage, and what it is. other: a folder of the same kind, of
    which a file may come instead."""
    changed: Files = dict(files)
    name = pick(rng, sorted(files))
    raw = files[name]
    draw = rng.random()
    if draw < 0.02:
        return changed, "no damage"
    if draw < 0.05 and hasattr(os, "mkfifo"):
        changed[name] = pick(rng, NO_FILES)
        return changed, f"{name}: {changed[name]}"
    if draw < 0.10 and len(files) > 1:
        second = pick(rng, sorted(files.keys() - {name}))
        changed[name], changed[second] = changed[second], changed[name]
        return changed, f"{name} and {second} changed places"
    if draw < 0.15 and other.get(name, raw) != raw:
        return changed | {name: other[name]}, f"{name} comes from another folder"
    ways = _WAYS.get(Path(name).suffix, [])
    change = pick(rng, ways) if ways and draw < 0.75 else pick(rng, _BYTES)
    try:
        changed[name], how = change(rng, raw)
    except (Unreadable, TypeError, ValueError, LookupError, AttributeError, RecursionError):
        # It is damaged already, beyond what this change knows.
        changed[name], how = _flipped(rng, raw)
    return changed, f"{name}: {how}"


def put(folder: Path, files: Files) -> None:
    for name, content in files.items():
        place = folder / name
        if isinstance(content, bytes):
            place.write_bytes(content)
        elif content == "a folder":
            place.mkdir()
        elif content == "a pipe":
            os.mkfifo(place)
        elif content != "missing":
            place.symlink_to("/dev/zero" if content == "/dev/zero" else "nowhere")


def _flipped(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    changed = bytearray(raw or b"\0")
    places = rng.integers(len(changed), size=int(rng.integers(1, 9)))
    for place in places:
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed), f"bits flipped at {sorted({*places.tolist()})}"


def _cut(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    end = int(rng.integers(len(raw) + 1))
    return raw[:end], f"cut off after {end} of {len(raw)} bytes"


def _extended(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    more = pick(rng, [b"\0" * 64, rng.bytes(37), raw, b"\n", b" ", b"}"])
    return raw + more, f"{len(more)} bytes more, beginning with {more[:4]!r}"


def _zeroed(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    start = int(rng.integers(len(raw) + 1))
    end = min(len(raw), start + int(rng.integers(1, 4096)))
    return raw[:start] + b"\0" * (end - start) + raw[end:], f"zeros from {start} to {end}"


def _moved(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    start, length = int(rng.integers(len(raw) + 1)), int(rng.integers(1, 512))
    to = int(rng.integers(len(raw) + 1))
    piece = raw[start : start + length]
    changed = raw[:to] + piece + raw[to + len(piece) :]
    return changed, f"{len(piece)} bytes from {start} stand at {to} too"


def _left_out(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    start, length = int(rng.integers(len(raw) + 1)), int(rng.integers(1, 64))
    return raw[:start] + raw[start + length :], f"{length} bytes at {start} are left out"


def _replaced(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    how = pick(rng, ["empty", "a pointer of Git LFS", "a web page", "in UTF-16", "noise", "spaces"])
    if how == "in UTF-16":
        return raw.decode("utf-8", "replace").encode("utf-16"), how
    contents = {"empty": b"", "a pointer of Git LFS": POINTER, "a web page": PAGE}
    contents |= {"noise": rng.bytes(len(raw)), "spaces": b" " * len(raw)}
    return contents[how], how


def _with_bom(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    return b"\xef\xbb\xbf" + raw, "a byte order mark before it"


_BYTES: list[Change] = [_flipped, _flipped, _cut, _extended, _zeroed, _moved, _left_out, _replaced]


def in_json(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    """One value or key of a JSON text changed."""
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except ValueError:
        raise Unreadable("no JSON") from None
    places = list(_places(data, ""))
    if not places:
        raise Unreadable("no place in it")
    holder, key, where = pick(rng, places)
    how = pick(rng, ["value", "value", "value", "removed", "twice", "unknown", "swapped"])
    raw_texts: dict[str, str] = {}

    def mark(text: str) -> str:
        raw_texts[f"@@{len(raw_texts)}@@"] = text
        return f"@@{len(raw_texts) - 1}@@"

    if how == "removed":
        del holder[key]
    elif how == "swapped":
        second, other, elsewhere = pick(rng, places)
        value = json.loads(json.dumps(holder[key]))  # a copy: one place may lie within the other
        holder[key], second[other] = json.loads(json.dumps(second[other])), value
        how = f"swapped with {elsewhere}"
    elif how == "unknown" and isinstance(holder, dict):
        holder["strange"] = 1
    elif how == "twice" and isinstance(holder, dict):
        text = pick(rng, NASTY[:20])
        holder[mark(json.dumps(key))] = mark(text)
        how = f"twice, then as {text:.20}"
    else:
        text = pick(rng, NASTY)
        holder[key] = mark(text)
        how = f"is {text:.20}"
    text = json.dumps(data)
    for placeholder, value in raw_texts.items():
        text = text.replace(f'"{placeholder}"', value)
    return text.encode(), f"{where} {how}"


def _places(value: Any, where: str) -> Any:
    items: Any = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield value, key, f"{where}.{key}"[:120]
        yield from _places(item, f"{where}.{key}")


def _in_a_line(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    """One line of a file with a JSON on each."""
    lines = raw.split(b"\n")
    number = pick(rng, [i for i, line in enumerate(lines) if line.strip()])
    lines[number], how = in_json(rng, lines[number])
    return b"\n".join(lines), f"line {number + 1}, {how}"


def _in_toml(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    lines = raw.decode("utf-8", "replace").split("\n")
    keys = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    if not keys:
        raise Unreadable("no key")
    number = pick(rng, keys)
    key = lines[number].partition(" = ")[0]
    how = pick(rng, ["value", "value", "value", "removed", "twice", "unknown", "header"])
    if how == "removed":
        del lines[number]
    elif how == "twice":
        lines.insert(number, lines[number])
    elif how == "unknown":
        lines.insert(number, f"strange = {pick(rng, NASTY_TOML)}")
    elif how == "header":
        number = pick(rng, [i for i, line in enumerate(lines) if line.startswith("[")])
        key, lines[number] = lines[number], pick(rng, ["", "[card]", "[[strange]]", "[["])
    else:
        value = pick(rng, NASTY_TOML)
        lines[number], how = f"{key} = {value}", f"is {value:.20}"
    return "\n".join(lines).encode(), f"line {number + 1}, {key} {how}"


def _in_line_ends(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    end = pick(rng, [b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8"])
    return raw.replace(b"\n", end), f"lines end in {end!r}"


def _in_text(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    names = {
        "20,000 combining marks": "e" + "\u0301" * 20_000,
        "NUL": "\0",
        "half of a surrogate pair": b"\xed\xa0\x80",
        "a long line": "x" * 200_000,
        "letters of another alphabet": "жук " * 3000,
        "control characters": "".join(map(chr, range(1, 32))),
    }
    name = pick(rng, sorted(names))
    more: Any = names[name]
    more = more if isinstance(more, bytes) else more.encode()
    place = int(rng.integers(len(raw) + 1))
    return raw[:place] + more + raw[place:], f"{name} at byte {place}"


def safetensors(entries: list[tuple[str, str, Any, bytes]], about: Any = None) -> bytes:
    """A file of tensors (name, dtype, shape, bytes), one after the other."""
    header: dict[str, Any] = {} if about is None else {"__metadata__": about}
    at = 0
    for name, kind, shape, raw in entries:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    return with_header(json.dumps(header).encode(), b"".join(raw for *_, raw in entries))


def with_header(header: bytes, data: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def _in_header(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    header, data = safetensors_header(raw)
    changed, how = in_json(rng, json.dumps(header).encode())
    return with_header(changed, data), f"header, {how}"


def _in_header_length(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    length = int.from_bytes(raw[:8], "little")
    new = pick(rng, [0, 1, length - 1, length + 1, length + 8, len(raw), 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", new % 2**64) + raw[8:], f"the header's length is {new}"


_OF_A_TENSOR = (
    "shape shape dtype dtype rename copy drop number swap bytes order wrapped halves".split()
)


def _in_tensors(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    """One tensor changed, and everything else made to fit it."""
    header, data = safetensors_header(raw)
    about = header.pop("__metadata__", None)
    entries = [
        (name, e["dtype"], list(e["shape"]), data[slice(*e["data_offsets"])])
        for name, e in header.items()
    ]
    need(entries, "no tensors")
    i, j = int(rng.integers(len(entries))), int(rng.integers(len(entries)))
    name, kind, shape, bytes_ = entries[i]
    how = pick(rng, _OF_A_TENSOR)
    if how == "shape":
        flat = [int(np.prod(shape))]
        shape = pick(rng, [shape[::-1], [1, *shape], [*shape, 1], flat, [*flat, 1], [-1, -flat[0]]])
        entries[i] = (name, kind, shape, bytes_)
        how = f"has shape {shape}"
    elif how == "dtype":
        kind = pick(rng, ["F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "I64", "X"])
        wide = {"F16": 2, "BF16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1}
        count = int(np.prod(shape)) * wide.get(kind, 4)
        entries[i] = (name, kind, shape, (bytes_ * 8)[:count])
        how = f"is stored as {kind}"
    elif how == "rename":
        plain = ["x", "", name[:-1], name + ".weight", name.replace("0", "1"), "../" + name]
        new = pick(rng, [*plain, "é" * 40, "a" * 4000])
        entries[i] = (new, kind, shape, bytes_)
        how = f"is called {new:.60}"
    elif how == "copy":
        entries.insert(j, (pick(rng, [name + "2", "copy"]), kind, shape, bytes_))
        how = "is there again under another name"
    elif how == "drop":
        del entries[i]
        how = "is left out"
    elif how == "number":
        stored = bytearray(bytes_)
        width = {"F64": 8, "F32": 4}.get(kind, 2)
        special = {"F64": b"\0\0\0\0\0\0\xf8\x7f", "F32": b"\0\0\xc0\x7f", "F16": b"\0\x7e"}
        place = width * int(rng.integers(len(stored) // width))
        stored[place : place + width] = special.get(kind, b"\xc0\x7f")
        entries[i] = (name, kind, shape, bytes(stored))
        how = "holds NaN"
    elif how == "swap":
        entries[i], entries[j] = (name, *entries[j][1:]), (entries[j][0], kind, shape, bytes_)
        how = f"has the numbers of {entries[j][0]}, which has its"
    elif how == "bytes":
        stored = bytearray(bytes_)
        stored[int(rng.integers(len(stored)))] ^= 1 << int(rng.integers(8))
        entries[i] = (name, kind, shape, bytes(stored))
        how = "has one bit flipped"
    elif how == "order":
        entries = [entries[k] for k in rng.permutation(len(entries))]
        how = "and all others are in another order"
    elif how == "wrapped":
        other = pick(rng, [bytes_, bytes_[::-1]])
        entries.append((pick(rng, ["_orig_mod.", "module."]) + name, kind, shape, other))
        how = "is there again in a wrapper's name" + (", different" if other != bytes_ else "")
    else:
        entries[i] = (name, kind, [n // 2 for n in shape], bytes_)
        how = "is said to be half as large"
    return safetensors(entries, about), f"{name} {how}"


def _in_offsets(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    header, data = safetensors_header(raw)
    names = [name for name in header if name != "__metadata__"]
    name = pick(rng, names)
    start, end = header[name]["data_offsets"]
    moved = [[start + by, end + by] for by in (4, -4, 1)]
    other = header[pick(rng, names)]["data_offsets"]
    new = pick(rng, [*moved, [end, start], [0, end - start], other, [start, 2**63], [-4, end]])
    header[name]["data_offsets"] = new
    return with_header(json.dumps(header).encode(), data), f"{name} lies at {new}"


_NUMBERS = [*range(14), 31, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]


def _in_gguf_number(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    """A count, length, type, offset or value of the metadata."""
    place, letter = pick(rng, plain_gguf(raw).numbers)
    size = struct.calcsize(letter)
    if letter in "fd":
        new = struct.pack("<" + letter, pick(rng, [0.0, -1.0, np.nan, np.inf, 1e-38, 10.0]))
    else:
        old = int.from_bytes(raw[place : place + size], "little")
        value = pick(rng, [*_NUMBERS, old + 1, max(old - 1, 0), 2 * old])
        new = (value % 256**size).to_bytes(size, "little")
    return raw[:place] + new + raw[place + size :], f"bytes {place} to {place + size} are {new!r}"


def _in_gguf_lists(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    """An entry of the metadata, or a tensor, left out or there twice, with its count."""
    said = plain_gguf(raw)
    tensor = bool(rng.integers(2))
    start, end = pick(rng, said.headers if tensor else said.entries)
    twice = bool(rng.integers(2))
    header_end = said.headers[-1][1]
    text = raw[: end if twice else start] + raw[start if twice else end : header_end]
    count_at = 8 if tensor else 16
    count = int.from_bytes(raw[count_at : count_at + 8], "little") + (1 if twice else -1)
    text = text[:count_at] + struct.pack("<Q", count) + text[count_at + 8 :]
    changed = text + b"\0" * (-len(text) % 32) + raw[said.data :]
    return changed, f"what stands from {start} to {end} is {'there twice' if twice else 'left out'}"


def _in_gguf_data(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    start = plain_gguf(raw).data
    place = int(rng.integers(start, len(raw)))
    changed = raw[:place] + bytes([raw[place] ^ 1 << int(rng.integers(8))]) + raw[place + 1 :]
    return changed, f"one bit of the numbers flipped, at {place}"


_JSON = [in_json, in_json, in_json, in_json, _with_bom]
_WAYS: dict[str, list[Change]] = {
    ".json": _JSON,
    ".upcoming": _JSON,
    ".ipynb": _JSON,
    ".jsonl": [_in_a_line, _in_a_line, _in_a_line, _with_bom, _in_line_ends, _in_text],
    ".toml": [_in_toml, _in_toml, _in_toml, _with_bom, _in_line_ends],
    ".txt": [_in_text, _in_text, _with_bom, _in_line_ends],
    ".jinja": [_in_text, _with_bom],
    ".safetensors": [_in_tensors, _in_tensors, _in_header, _in_header_length, _in_offsets],
    ".gguf": [_in_gguf_number, _in_gguf_number, _in_gguf_lists, _in_gguf_data],
}
