"""The course without installation: a JupyterLite site, whose notebooks run in the reader's browser.

The site is a folder of files for any web server. It holds the lessons and minilora as a wheel.
Python itself is Pyodide, CPython compiled to WebAssembly, which browsers load from Pyodide's server
unless a distribution of it is put into the site.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import minilora
from minilora.system.errors import MissingExtraError, UsageError
from minilora.system.files import temporary_folder
from minilora.system.version import __version__

PACKAGE = Path(minilora.__file__).parent
_LEFT_OUT = ("__pycache__", "lessons")  # of the package; the lessons are in the site themselves
_WHEEL = "Wheel-Version: 1.0\nGenerator: minilora\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_BUILD = "build --contents files --no-sourcemaps --no-unused-shared-packages --apps lab"
_KERNEL = "@jupyterlite/pyodide-kernel-extension:kernel"
_STAMP = (1980, 1, 1, 0, 0, 0)  # the same wheel whenever it is made


def write_site(
    folder: Path, lessons: Sequence[Path], pyodide: Path | None = None, wheels: Sequence[Path] = ()
) -> None:
    """Write the site; what was in the folder is replaced when the new one is complete.

    lessons: the files that the reader finds in it. pyodide: a distribution of Pyodide
    (pyodide-VERSION.tar.bz2) to put into the site, which then needs no other server. wheels: more
    packages for it. Raises MissingExtraError without JupyterLite, and UsageError if it fails.
    """
    if find_spec("jupyterlite_core") is None or find_spec("jupyterlite_pyodide_kernel") is None:
        raise MissingExtraError('the site needs JupyterLite: pip install "minilora[lite]"')
    if pyodide is not None and not pyodide.is_file():
        raise UsageError(
            f"there is no file {str(pyodide)!r}; --pyodide takes a .tar.bz2 of Pyodide"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / "jupyter-lite.json").is_file():
        raise UsageError(f"{folder} holds something that is no such site; give another folder")
    with temporary_folder(folder.resolve().parent) as work:
        for room in ("files", "pypi"):
            (work / room).mkdir()
        for lesson in lessons:
            shutil.copyfile(lesson, work / "files" / lesson.name)
        write_wheel(work / "pypi")
        for wheel in wheels:
            shutil.copyfile(wheel, work / "pypi" / wheel.name)
        _build(work, pyodide)
        if folder.exists():
            shutil.rmtree(folder)
        (work / "_output").rename(folder)


def _build(work: Path, pyodide: Path | None) -> None:
    command = [sys.executable, "-m", "jupyterlite_core", *_BUILD.split()]
    if pyodide is not None:
        command += ["--pyodide", str(pyodide.resolve())]
        plugins = {_KERNEL: {"disablePyPIFallback": True}}
        config = {"litePluginSettings": plugins}
        text = json.dumps({"jupyter-lite-schema-version": 0, "jupyter-config-data": config})
        (work / "jupyter-lite.json").write_text(text, "utf-8")
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode or not (work / "_output" / "jupyter-lite.json").is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UsageError(f"jupyter lite build failed: {' '.join(last)}")


def write_wheel(folder: Path) -> Path:
    """minilora as it is here, as a wheel in this folder (PEP 427), and its path."""
    name = f"minilora-{__version__}"
    about = f"{name}.dist-info"
    content = {
        f"minilora/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes()
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and not set(path.relative_to(PACKAGE).parts) & set(_LEFT_OUT)
    }
    metadata = importlib.metadata.distribution("minilora").read_text("METADATA") or ""
    content |= {f"{about}/METADATA": metadata.encode(), f"{about}/WHEEL": _WHEEL.encode()}
    record = "".join(f"{path},{_digest(data)},{len(data)}\n" for path, data in content.items())
    content[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in content.items():
            wheel.writestr(zipfile.ZipInfo(member, _STAMP), data, zipfile.ZIP_DEFLATED)
    return path


def _digest(data: bytes) -> str:
    hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"sha256={hashed.decode().rstrip('=')}"
