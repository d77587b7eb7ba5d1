"""What minilora uses of safetensors, in pure Python, for a Pyodide that has none."""

import json
from pathlib import Path
from types import TracebackType

import numpy as np

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1"}


class SafetensorError(Exception):
    pass


class safe_open:  # noqa: N801
    def __init__(self, path: str | Path, framework: str) -> None:
        self._read(Path(path).read_bytes())

    def _read(self, data: bytes) -> None:
        length = int.from_bytes(data[:8], "little")
        self._header, self._bytes = json.loads(data[8 : 8 + length]), data[8 + length :]
        self._about = self._header.pop("__metadata__", None)

    def __enter__(self) -> "safe_open":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def metadata(self) -> dict[str, str] | None:
        return self._about

    def keys(self) -> list[str]:
        return list(self._header)

    def get_tensor(self, name: str) -> np.ndarray:
        about = self._header[name]
        start, end = about["data_offsets"]
        array = np.frombuffer(self._bytes[start:end], _TYPES[about["dtype"]])
        return array.reshape(about["shape"]).copy()


def save(tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    names = {np.dtype(kind): name for name, kind in _TYPES.items()}
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    content = b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {
            "dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": offsets,
        }  # fmt: skip
        content += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def load_file(path: str | Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load(data: bytes) -> dict[str, np.ndarray]:
    file = safe_open.__new__(safe_open)
    file._read(data)
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
