"""Claims about odd environments: every command works there, and says the same at every width.

A process of every_command.py runs them all, in a folder and with files whose names have spaces and
letters beyond ASCII.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
NOWHERE = "/dev/null/nowhere"  # cannot be made
UNSET = None

ENVIRONMENTS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "no HOME": {"HOME": UNSET, "XDG_CACHE_HOME": UNSET, "XDG_DATA_HOME": UNSET},
    "HOME that cannot be made": {"HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE},
    "backend that does not exist": {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": NOWHERE},
    "backend of a notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "dumb and narrow": {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "20"},
    "wide and in Nepal": {"FORCE_COLOR": "1", "COLUMNS": "300", "TZ": "Asia/Kathmandu"},
    "widths that are none": {"COLUMNS": "many", "LINES": "0", "TZ": "Nowhere/Here"},
}
OPTIONS = {
    "warnings are errors": ["-X", "dev", "-W", "error"],
    "no assertions, no docstrings": ["-OO"],
    "nothing from the current folder": ["-P"],
}


def every_command(folder, options=(), closed=(), **environment):
    """Run them in a new folder; stdout as text, stderr's lines, the exit status of each."""
    folder.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment}
    argv = [sys.executable, *options, ROOT / "tests/system/every_command.py"]
    if closed:
        argv = ["sh", "-c", f'"$@" {" ".join(closed)}', "sh", *argv]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={name: value for name, value in env.items() if value is not UNSET},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0 and "Traceback" not in said, said
    *lines, statuses = said.splitlines()
    return SimpleNamespace(
        out=done.stdout.decode("utf-8", "replace"),
        lines=lines,
        statuses=json.loads(statuses[statuses.index("{") :]),
    )


def numbers(text):
    return Counter(re.findall(r"\d(?:[\d.,]*\d)?", text))


def test_every_number_is_whole_at_every_width(tmp_path):
    """Also where a number has no room beside its name: rows become lines, and nothing is cut."""
    shown = {}
    for columns in ("300", "40", "20"):
        # A path is broken where a line ends, and the folder's may have numbers in it.
        out = every_command(tmp_path / "narrow", LIGHT="1", COLUMNS=columns).out
        assert not re.search(r"\d…|…\d", out)
        shown[columns] = numbers(re.sub(r"current\s+folder.*?writable", "", out, flags=re.DOTALL))
        shown[columns] -= Counter([columns])  # doctor tells the width
        (tmp_path / "narrow").rename(tmp_path / columns)
    assert shown["40"] == shown["300"] == shown["20"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_command_works_in(name, tmp_path):
    ended = every_command(tmp_path / "wo Łódź ist", **ENVIRONMENTS[name])
    assert set(ended.statuses.values()) == {0}, ended.statuses


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_works_where(name, tmp_path):
    ended = every_command(tmp_path / "there", options=OPTIONS[name], LIGHT="1")
    assert set(ended.statuses.values()) == {0}, ended.statuses


@pytest.mark.skipif(os.name == "nt", reason="sh closes them")
@pytest.mark.parametrize("closed", [[">&-"], ["<&-"], [">&-", "<&-"]])
def test_every_command_works_with_closed_streams(closed, tmp_path):
    ended = every_command(tmp_path / "closed", closed=closed, LIGHT="1")
    assert set(ended.statuses.values()) == {0}, ended.statuses
