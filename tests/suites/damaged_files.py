"""Damaged files: whatever was done to a file, it is loaded as it says, or refused in one sentence.

Each trial damages one file of one kind in one way (mutations.py), loads it with limits of time and
of memory, and asks a judge who reads the bytes with nothing of ours (plain_readers.py) whether what
was loaded is what the file says. After a refusal everything must be as it was before.

    python tests/suites/damaged_files.py --trials 10500 --seed 0
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).parents[1]
sys.path.extend(str(_TESTS / room) for room in ("", "hub"))  # where what all tests share lies

import numpy as np  # noqa: E402
from adapter_kinds import Adapters, Inspected  # noqa: E402
from gguf_kinds import GgufModels  # noqa: E402
from kinds import ANEW, AS_SAID, REFUSED, Kind  # noqa: E402
from model_kinds import KilledSaves, Models  # noqa: E402
from mutations import Files, Rng, damaged, put  # noqa: E402
from plain_readers import Unreadable  # noqa: E402
from resume_kinds import Resumes  # noqa: E402
from suite import Suite, main  # noqa: E402
from text_kinds import TEXTS  # noqa: E402

from minilora.system.errors import MiniloraError  # noqa: E402

KINDS: list[Kind] = [
    Models("gpt2"),
    Models("llama", "F16"),
    Models("llama", "BF16", shards=2),
    Models("gpt2-untied", shards=3),
    Models("mixed-untied"),
    Models("llama", "F16", wide=320),  # 2 MB, of which a copy too many is noticed
    KilledSaves(),
    Adapters("LoRA"),
    Adapters("LoRA"),  # twice, as there are so many of its options
    Adapters("DoRA, PiSSA"),
    Inspected("LoRA"),
    GgufModels(quantized=False),
    GgufModels(quantized=True),
    Resumes(),
    Resumes(sealed=True),
    *TEXTS,
]
SECONDS = 5.0  # for one load; most take a few thousandths
MEMORY = 1 << 20  # bytes that a load may take beside kind.times its files
ADDRESSES = 1 << 30  # and what all of the process may add to its address space meanwhile
HARMLESS = ("a byte order mark before it", r"lines end in b'\r\n'")  # what editors do
LETTERS = 400  # of a sentence


class Late(BaseException):
    """The load takes too long."""


@contextmanager
def limits() -> Iterator[None]:
    """Raises Late after SECONDS, and MemoryError where more than ADDRESSES are asked for."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    import resource

    def late(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        most = pages * resource.getpagesize() + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def trial(seed: int, i: int) -> tuple[str, str]:
    """One file of the i-th kind is damaged, loaded and judged."""
    rng = np.random.default_rng((seed, i))
    kind = KINDS[i % len(KINDS)]
    other = kind.whole(rng)
    whole = kind.whole(rng)
    files, how, once = _drawn(rng, kind, whole, other)
    end, why = _loaded(kind, files)
    if end == "memory":  # one of Python's own tables may have grown: then not again
        end, why = _loaded(kind, files)
    by_an_editor = once and how.endswith(HARMLESS) and not how.startswith(kind.bit_for_bit)
    still_whole = by_an_editor or kind.must_load(whole, files)
    if end in (REFUSED, ANEW) and still_whole and not kind.damaged_before:
        end = "refused although whole"
    return end, f"{kind.name}; {how}; {why}"


def _drawn(
    rng: Rng, kind: Kind, whole: Mapping[str, bytes], other: Mapping[str, bytes]
) -> tuple[Files, str, bool]:
    """The files that are loaded, what is wrong with them, and whether that is one thing."""
    if kind.damaged_before:  # once more, and a checksum would tell
        return dict(whole), "it holds what no run leaves", True
    files, how = damaged(rng, whole, other)
    only_bytes = all(isinstance(content, bytes) for content in files.values())
    if rng.random() < 0.9 or not only_bytes:
        return files, how, True
    files, more = damaged(rng, files, other)
    return files, f"{how}, and {more}", False


def _loaded(kind: Kind, files: Files) -> tuple[str, str]:
    """The end of loading these files from a folder of their own, and what was said."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, kind.name.split()[0].strip(","))
        folder.mkdir()
        put(folder, files)
        if all(isinstance(content, bytes) for content in files.values()):
            end, why = _end(kind, folder, files)
        else:  # opening a pipe can wait where no signal is heard
            end, why = _apart(lambda: _end(kind, folder, files))
    return end, why.replace(place, "TMP")


def _apart(work: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """What the work returns in a process of its own, which has twice SECONDS."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(work()).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        ready = select.select([answer], [], [], 2 * SECONDS)[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
        text = answer.read()
    os.waitpid(child, 0)
    if not ready:
        return "hang", "no signal is heard"
    return tuple(json.loads(text)) if text else ("raw exception", "the process has ended")


def _end(kind: Kind, folder: Path, files: Files) -> tuple[str, str]:
    target = kind.target()
    before = kind.state(target)
    error: BaseException | None = None
    loaded = None
    tracemalloc.start()
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with limits():
                loaded = kind.load(folder, target)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # a panic in Rust is no Exception
            error = raised
    seconds = time.monotonic() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(len(content) for content in files.values() if isinstance(content, bytes))
    if seconds > SECONDS or isinstance(error, Late):
        return "hang", f"{seconds:.1f} seconds"
    if peak > kind.times * size + MEMORY or isinstance(error, MemoryError):
        return "memory", f"{peak:,} bytes for {size:,}"
    if numpys := [w for w in warned if issubclass(w.category, RuntimeWarning)]:
        return "NumPy warned", f"{numpys[0].message}"
    if error is not None:
        return _refusal(kind, folder, files, error, kind.state(target) == before)
    try:
        with np.errstate(all="ignore"):  # the numbers of a damaged file may be any
            return kind.judge(files, loaded), f"{[str(w.message) for w in warned]}"
    except Unreadable as wrong:
        return "silent wrong", f"{wrong}"
    except Exception as confused:  # its fault or the reader's: to be looked at
        return "the judge does not know", f"{confused!r}"


def _refusal(
    kind: Kind, folder: Path, files: Files, error: BaseException, unchanged: bool
) -> tuple[str, str]:
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, MiniloraError | OSError):
        return "raw exception", text[:600]
    left = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    as_before = left == {k: v for k, v in files.items() if isinstance(v, bytes)}
    if not unchanged or not (as_before or kind.makes_anew):
        return "half loaded", text
    said = str(error).replace(str(folder.parent), "")
    if "\n" in said or len(said) > LETTERS:
        return "not one sentence", text[:1000]
    names = [*files, str(folder)]
    if not any(name in str(error) for name in names):
        return "names no file", text
    return REFUSED, text


SUITE = Suite(
    name="damaged_files",
    promise="A damaged file is loaded exactly as it says, or refused in one sentence and nothing "
    "has changed.",
    trial=trial,
    kept=(AS_SAID, REFUSED, ANEW),
    trials=10_500,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
