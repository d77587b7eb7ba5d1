"""What this machine has, what is missing, and the command that puts it right.

Imports data.py, hub.py, parallel.py, recipes.py.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs
from threadpoolctl import threadpool_info

from minilora.experiments.tasks import BASE_MODELS
from minilora.hub import load_model
from minilora.system.cores import usable_cores
from minilora.text.alphabet import TextError
from minilora.text.corpora import load_corpus

REQUIRED = ("numpy", "matplotlib", "platformdirs", "rich", "safetensors", "threadpoolctl", "tqdm")
OPTIONAL = {
    "pytest": "test",
    "hypothesis": "test",
    "jupyterlab": "lessons",
    "joblib": "sweep",
    "distributed": "dask",
    "torch": "parity",
    "transformers": "parity",
    "peft": "parity",
}


@dataclass(frozen=True)
class Check:
    """ok: True, False (something will not work), or None (only an extra is missing)."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which a person would want to read them."""
    return [
        Check("Python", sys.version_info >= (3, 11), platform.python_version()),
        *(_package(name, None) for name in REQUIRED),
        *(_blas()),
        Check("cores", True, f"{usable_cores()} of {os.cpu_count()} usable"),
        _folder("cache folder", Path(platformdirs.user_cache_dir("minilora")), False),
        _folder("current folder", Path.cwd(), True),
        _corpus(),
        *(_model(name) for name in BASE_MODELS),
        *(_package(name, extra) for name, extra in OPTIONAL.items()),
    ]


def _package(name: str, extra: str | None) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        if extra is None:
            return Check(name, False, "not installed", f"{sys.executable} -m pip install {name}")
        command = f'python -m pip install -e ".[{extra}]"'
        return Check(name, None, "not installed", f"for the {extra} extra: {command}")


def _blas() -> list[Check]:
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    if not libraries:
        return [Check("BLAS", True, "one that cannot be asked for its threads")]
    return [
        Check("BLAS", True, f"{lib['internal_api']} {lib['version']}, {lib['num_threads']} threads")
        for lib in libraries
    ]


def _folder(name: str, folder: Path, needed: bool) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check(name, True, f"{folder} is writable")
    except OSError as error:
        remedy = (
            "results go there unless --out says otherwise; choose another with --out"
            if needed
            else "the corpora are built anew at every start, which costs a second"
        )
        return Check(name, False if needed else None, f"{folder}: {error.strerror}", remedy)


def _corpus() -> Check:
    try:
        sizes = [f"{name} {len(load_corpus(name).train):,}" for name in ("prose", "code")]
        return Check("corpora", True, f"{', '.join(sizes)} characters to train on")
    except TextError as error:
        return Check("corpora", False, "no standard-library sources", str(error))


def _model(name: str) -> Check:
    try:
        parameters = sum(p.size for p in load_model(name).parameters())
        return Check(name, True, f"{parameters:,} parameters")
    except (OSError, ValueError) as error:
        return Check(name, False, "cannot be loaded", f"{error}")
