"""What this machine has, what is missing, and the command that puts it right."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs
from threadpoolctl import threadpool_info

from minilora.cli.terminal.console import Console
from minilora.cli.terminal.plain import plain
from minilora.experiments.tasks import BASE_MODELS
from minilora.hub import load_model
from minilora.learn.exam.progress import default_path
from minilora.system.cores import usable_cores
from minilora.system.files import make_folder
from minilora.text.alphabet import TextError
from minilora.text.corpora import load_corpus

REQUIRED = {  # with the lowest version that works, as in pyproject.toml
    "numpy": "2.0",
    "matplotlib": "3.9",
    "platformdirs": "4",
    "regex": "2022.10.31",
    "rich": "13",
    "safetensors": "0.6.1",
    "threadpoolctl": "3.5",
    "tqdm": "4.64",
}
OPTIONAL = {
    "pytest": "test",
    "hypothesis": "test",
    "jupyterlab": "lessons",
    "jupyterlite-core": "lite",
    "fsrs": "cards",
    "genanki": "cards",
    "tokenizers": "hf",
    "jinja2": "hf",
    "joblib": "sweep",
    "distributed": "dask",
    "torch": "parity",
    "transformers": "parity",
    "peft": "parity",
}
EXTRAS = {
    "test": "for the tests",
    "lessons": "for the lessons",
    "lite": "for a site whose notebooks run in the browser",
    "cards": "to review the exam cards, and to write them for Anki",
    "hf": "for real models' tokenizers and chats",
    "sweep": "for several runs at a time",
    "dask": "for runs on several machines",
    "parity": "to compare with PyTorch and PEFT",
}
_OUT = "results go there unless --out says otherwise; choose another with --out"
_NO_CACHE = "the corpora are built anew at every start, which costs a second"
_NO_PROGRESS = "what the quiz keeps goes there; choose another place with quiz --progress FILE"


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
        *(_required(name, lowest) for name, lowest in REQUIRED.items()),
        *(_blas()),
        Check("cores", True, f"{usable_cores()} of {os.cpu_count()} usable"),
        _terminal(),
        _folder("current folder", Path.cwd(), True, _OUT),
        _folder("cache folder", Path(platformdirs.user_cache_dir("minilora")), False, _NO_CACHE),
        _folder("data folder", default_path().parent, False, _NO_PROGRESS),
        _corpus(),
        *(_model(name) for name in BASE_MODELS),
        *(_optional(name, extra) for name, extra in OPTIONAL.items()),
    ]


def _required(name: str, lowest: str) -> Check:
    remedy = _pip_install(f"{name}>={lowest}")
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, False, "not installed", remedy)
    if _numbers(found) < _numbers(lowest):
        return Check(name, False, f"{found}, which is too old", remedy)
    return Check(name, True, found)


def _optional(name: str, extra: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, None, "not installed", f"{EXTRAS[extra]}: {_pip_install(name)}")


def _pip_install(what: str) -> str:
    """It works in a clone and outside of one, as it names the packages themselves."""
    return shlex.join([sys.executable, "-m", "pip", "install", what])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _blas() -> list[Check]:
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    if not libraries:
        remedy = (
            "should training be slow, set OPENBLAS_NUM_THREADS=1 (on macOS "
            "VECLIB_MAXIMUM_THREADS=1) before you start Python: BLAS's own threads are in the way"
        )
        return [Check("BLAS", None, "none whose threads can be held to one", remedy)]
    return [
        Check("BLAS", True, f"{lib['internal_api']} {lib['version']}, {lib['num_threads']} threads")
        for lib in libraries
    ]


def _terminal() -> Check:
    encoding, columns = sys.stdout.encoding or "unknown", Console().width
    found = f"{encoding}, {columns} columns"
    if plain("√Δ", encoding) == "√Δ":
        return Check("terminal", True, found)
    remedy = "√ is shown as sqrt, Δ as Delta; set PYTHONIOENCODING=utf-8 if it can show them"
    return Check("terminal", None, found, remedy)


def _folder(name: str, folder: Path, needed: bool, remedy: str) -> Check:
    try:
        make_folder(folder)
        return Check(name, True, f"{folder} is writable")
    except OSError as error:
        return Check(name, False if needed else None, str(error), remedy)


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
