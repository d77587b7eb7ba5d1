"""Claims about GGUF files: blocks mean what llama.cpp means by them, and no file is trusted."""

import struct
import tracemalloc

import numpy as np
import pytest
from gguf_files import gguf, header, random_blocks, text, value

from minilora.hub.gguf.reader import read_gguf
from minilora.quantization.gguf_blocks import BLOCKS, dequantize
from minilora.system.errors import UsageError

ONE = {"w": ("F32", (2, 4), np.arange(8, dtype="<f4").tobytes())}


def written(tmp_path, content: bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


def test_metadata_and_tensors_are_read_as_they_were_written(tmp_path):
    said = {"a": "é", "n": 7, "minus": -3, "x": 0.5, "yes": True, "words": ["a", "", "bc"]}
    said |= {"ids": [3, 1, 2]}
    file = read_gguf(written(tmp_path, gguf(said, ONE)))
    assert file.metadata == said
    assert file.tensors["w"].shape == (2, 4) and file.tensors["w"].kind == "F32"
    assert dequantize("F32", file.tensors["w"].blocks).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("kind", BLOCKS)
def test_each_kind_of_block_gives_the_numbers_of_its_definition(kind):
    rng = np.random.default_rng(0)
    raw = np.frombuffer(random_blocks(kind, 3, 64, rng), np.uint8).reshape(3, -1)
    got = dequantize(kind, raw)
    per_block, size = BLOCKS[kind]
    for row in range(3):
        for column in range(64):
            block = raw[row, column // per_block * size :][:size].tobytes()
            i = column % per_block
            if kind == "F32":
                (x,) = struct.unpack("<f", block)
            elif kind == "F16":
                (x,) = struct.unpack("<e", block)
            elif kind == "BF16":
                (x,) = struct.unpack("<f", b"\0\0" + block)
            else:
                d = np.float32(struct.unpack_from("<e", block)[0])
                m = np.float32(struct.unpack_from("<e", block, 2)[0]) if kind == "Q4_1" else 0
                if kind == "Q8_0":
                    q = struct.unpack_from("<b", block, 2 + i)[0]
                else:
                    byte = block[size - 16 + i % 16]
                    q = byte & 15 if i < 16 else byte >> 4
                    q -= 8 if kind == "Q4_0" else 0
                x = np.float32(np.float32(q) * d) + m
            assert got[row, column] == np.float32(x)


def _with(metadata: bytes, n_keys: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, n_keys) + metadata + b"\0" * 64


def _tensor(shape, kind="F32", offset=0, name="w") -> bytes:
    out = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + header(name, shape, kind, offset)
    return out + b"\0" * (-len(out) % 32 + 64)


HOSTILE = {
    "no GGUF at all": (b"GGML" + bytes(40), "does not begin with GGUF"),
    "empty": (b"", "too short"),
    "another version": (gguf({}, ONE, version=1), "version 1"),
    "more tensors than bytes": (gguf({}, ONE, n_tensors=2**62), "do not fit"),
    "more keys than bytes": (gguf({}, ONE, n_keys=2**62), "do not fit"),
    "a text longer than the file": (_with(struct.pack("<Q", 2**60) + b"a"), "it ends within"),
    "a text that is no UTF-8": (_with(text(b"\xff\xfe") + value(1)), "no UTF-8"),
    "an unknown kind of value": (_with(text("a") + struct.pack("<I", 77)), "kind 77"),
    "lists in lists": (_with(text("a") + struct.pack("<IIQ", 9, 9, 1)), "kind 9"),
    "a list longer than the file": (
        _with(text("a") + struct.pack("<IIQ", 9, 4, 2**61)),
        "do not fit",
    ),
    "more texts than bytes": (_with(text("a") + struct.pack("<IIQ", 9, 8, 10**6)), "do not fit"),
    "very many texts": (_with(text("a") + struct.pack("<IIQ", 9, 8, 2**61)), "do not fit"),
    "a text of 2**64 - 1 bytes": (
        _with(text("a") + struct.pack("<IIQQ", 9, 8, 2, 2**64 - 1)),
        "is cut off",
    ),
    "a key twice": (_with((text("a") + value(1)) * 2, 2), "a stands there twice"),
    "no key": (_with(text("") + value(1)), "stands '' for a name"),
    "a key of two lines": (_with(text("a\nb") + value(1)), r"stands 'a\nb' for a name"),
    "a key of a megabyte": (_with(text("a" * 10**6) + value(1)), "for a name"),
    "a tensor without name": (_tensor((1, 1), name=""), "stands '' for a name"),
    "many keys": (_with(b"".join(text(f"{i}") + value(i) for i in range(5001)), 5001), "not fit"),
    "many tensors": (gguf({}, {f"{i}": ONE["w"] for i in range(50_001)}), "do not fit"),
    "a list of texts that is cut off": (
        _with(text("a") + struct.pack("<IIQQ", 9, 8, 1, 2**61)),
        "it ends within",
    ),
    "a shape of 2**62 numbers": (_tensor((2**31, 2**31)), "does not lie within"),
    "a shape with 0": (_tensor((0, 4)), "whole number of blocks"),
    "part of a block": (_tensor((1, 16), "Q4_0"), "whole number of blocks"),
    "an offset outside": (_tensor((1, 1), offset=2**40), "does not lie within"),
    "an offset between": (_tensor((1, 1), offset=5), "does not begin where"),
    "an offset further on": (_tensor((1, 1), offset=32), "does not begin where"),
    "five dimensions": (_tensor((1, 1, 1, 1, 1)), "5 dimensions"),
    "an unsupported kind": (_tensor((1, 256), "Q6_K"), "stored as Q6_K; supported: F32"),
    "an unknown kind of tensor": (_tensor((1, 4), 99), "stored as number 99"),
    "an alignment of 3": (gguf({"general.alignment": 3}, ONE), "general.alignment is 3"),
    "an alignment in words": (gguf({"general.alignment": "x"}, ONE), "general.alignment is 'x'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_lies_is_refused_without_asking_for_memory(name, tmp_path):
    content, sentence = HOSTILE[name]
    path = written(tmp_path, content)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"model\.gguf") as caught:
        read_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sentence in str(caught.value) and len(str(caught.value)) < 400
    assert peak < 2 * len(content) + 1_000_000


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = gguf({"a": "b", "words": ["x", "y"], "ids": [1, 2]}, ONE)
    for n in range(len(whole)):
        with pytest.raises(UsageError):
            read_gguf(written(tmp_path, whole[:n]))


def test_two_tensors_of_one_name_are_refused(tmp_path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + header("w", (1,), "F32", 0) * 2
    with pytest.raises(UsageError, match="two tensors are called w"):
        read_gguf(written(tmp_path, head + b"\0" * 256))


def test_what_is_not_there_and_what_is_no_file_is_said(tmp_path):
    for path in (tmp_path, tmp_path / "none.gguf", "/dev/zero"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_gguf(path)


def test_two_tensors_in_one_place_are_refused(tmp_path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0)
    head += header("a", (8,), "F32", 0) + header("b", (8,), "F32", 0)
    with pytest.raises(UsageError, match="b does not begin where the tensor before it ends"):
        read_gguf(written(tmp_path, head + b"\0" * 256))


def test_lists_that_are_not_wanted_take_no_memory(tmp_path):
    path = written(tmp_path, gguf({"ids": list(range(100_000)), "x": 1}, ONE))
    tracemalloc.start()
    assert read_gguf(path, lists=False).metadata == {"ids": [], "x": 1}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000  # a file's buffer has 128 KiB from Python 3.14 on
