"""The two files of a folder: a JSON with the configuration and a safetensors with the numbers.

A safetensors file is a JSON header (name, dtype, shape, place of each tensor), then the bytes of
the tensors. Large models come in several files, shards, and an index that says which tensor is in
which. Nothing is ever pickled: opening a pickle can run any code.
Source: the format's description in huggingface/safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from minilora.system.errors import UsageError
from minilora.system.files import write_atomically

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
MODEL_FILES = ("config.json", "model.safetensors")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_BUFFERS = re.compile(r"(.*\.)?(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)")  # constants


def require_files(folder: Path, names: tuple[str, str]) -> Path:
    """The path of the config, once both files are known to be there. Raises FileNotFoundError."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    weights = (names[1], f"{names[1]}.index.json")
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


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); copy or download it again") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} is damaged (no JSON object); copy or download it again")
    return data


def read_weights(folder: Path) -> Arrays:
    if (folder / MODEL_FILES[1]).is_file():
        return read_safetensors(folder / MODEL_FILES[1])
    index = folder / f"{MODEL_FILES[1]}.index.json"
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise UsageError(f"{index} is damaged (no weight_map); copy or download it again")
    tensors: Arrays = {}
    for shard in sorted({str(name) for name in shards.values()}):
        tensors |= read_safetensors(folder / Path(shard).name)
    return tensors


def read_safetensors(path: Path) -> Arrays:
    """All tensors of a file as float32, without the constants that old files hold."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy or download it again")
    try:
        content = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged ({error}); copy or download it again") from None
    tensors = {k: _float32(k, v, path) for k, v in content if not _BUFFERS.fullmatch(k)}
    _require_finite(tensors, f"in {path}")
    return tensors


def _float32(key: str, raw: Mapping[str, Any], path: Path) -> np.ndarray:
    kind, shape = raw["dtype"], raw["shape"]
    if kind == "BF16":  # the upper half of a float32, a type that NumPy does not have
        upper = np.frombuffer(raw["data"], "<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    if kind not in ("F16", "F32", "F64"):
        raise UsageError(
            f"{key} in {path} is stored as {kind}, which is not supported; save it as float32"
        )
    return np.frombuffer(raw["data"], f"<f{int(kind[1:]) // 8}").astype(np.float32).reshape(shape)


def _require_finite(tensors: Arrays, where: str) -> None:
    bad = [key for key, array in tensors.items() if not np.isfinite(array).all()]
    if bad:
        raise UsageError(f"NaN or infinity {where}: {', '.join(bad)}; use an earlier checkpoint")


def require_fit(found: Arrays, shapes: Shapes, what: str) -> None:
    wrong = [f"missing {key} {shape}" for key, shape in shapes.items() if key not in found]
    wrong += [f"unexpected {key} {a.shape}" for key, a in found.items() if key not in shapes]
    wrong += [
        f"{key} is {found[key].shape} where {shape} is needed"
        for key, shape in shapes.items()
        if key in found and found[key].shape != shape
    ]
    if wrong:
        raise UsageError(f"{what}: " + "; ".join(wrong))


def write_folder(
    folder: Path, names: tuple[str, str], config: dict[str, Any], tensors: Arrays, dtype: Any
) -> None:
    """Write both files, each whole or not at all, and the weights first."""
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    with np.errstate(over="ignore"):
        stored = {key: np.ascontiguousarray(array, dtype) for key, array in tensors.items()}
    _require_finite(stored, f"would be saved as {np.dtype(dtype)}")
    content = save(stored, {"format": "pt"})

    def write_both(path: Path) -> None:
        path.write_bytes(content)
        write_atomically(folder / names[0], lambda p: p.write_text(text, encoding="utf-8"))

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder to save in")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / names[1], write_both)
