"""PROSE, CODE and WORDS: text that every Python installation carries, so that none is downloaded.

PROSE is the documentation in the running interpreter's own standard library, CODE its modules, and
WORDS the English words of the prose, for the string tasks. They are built once and kept in a cache.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import platform
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import numpy as np
import platformdirs

from minilora.system.files import make_folder, write_atomically
from minilora.system.readers import MIB, read_bytes
from minilora.system.scratch import remove_left_behind
from minilora.text import alphabet
from minilora.text.alphabet import LETTERS, TextError, encode, to_alphabet
from minilora.text.windows import WINDOW

SPLITS = ("train", "val", "test")
_LARGEST = 32 * MIB  # of the cache file; the text has some three million symbols
_PARTS = [f"{kind}_{split}" for kind in ("prose", "code", "words") for split in SPLITS]


@functools.cache
def parts() -> dict[str, np.ndarray]:
    """All nine parts, {"prose_train": uint8 (n,), ...}, from the cache or else from the sources."""
    found = _read_cache()
    if found is None:
        found = {key: encode(text) for key, text in _build().items()}
        _write_cache(found)
    else:
        remove_left_behind(_cache_file().parent)  # nobody else writes there again
    for part in found.values():
        part.flags.writeable = False  # every caller is handed the same arrays
    return found


def _read_cache() -> dict[str, np.ndarray] | None:
    from safetensors.numpy import load

    try:
        stored = load(read_bytes(_cache_file(), _LARGEST))
        found = {part: stored[part] for part in _PARTS}
        is_ours = stored["seal"].tolist() == [_seal(found)]
    except Exception:  # whatever is wrong with a cache file, the remedy is to build it again
        return None
    return found if is_ours else None


def _write_cache(found: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    content = save(found | {"seal": np.array([_seal(found)])})
    try:
        cache = _cache_file()
        make_folder(cache.parent)
        write_atomically(cache, lambda path: path.write_bytes(content))
    except OSError:  # on a read-only or full disk the text is built again at the next start
        pass


def _cache_file() -> Path:
    name = f"stdlib-{platform.python_version()}-{zlib.crc32(_recipe()):08x}.safetensors"
    return Path(platformdirs.user_cache_dir("minilora"), name)


def _recipe() -> bytes:
    # The source of the two files that make the text: no edit can leave an outdated cache behind.
    # The folder is part of it, as two builds of one Python version may differ in their modules.
    sources = [Path(file).read_bytes() for file in (__file__, alphabet.__file__)]
    return b"".join(sources) + sysconfig.get_path("stdlib").encode()


def _seal(found: dict[str, np.ndarray]) -> int:
    """A checksum of the recipe and the text, which an array file of anything else cannot have."""
    form = str([(key, part.dtype, part.shape) for key, part in found.items()]).encode()
    seal = zlib.crc32(_recipe() + form)
    for part in found.values():
        seal = zlib.crc32(part.tobytes(), seal)
    return seal


_SKIPPED = set(
    "test tests idle_test idlelib lib2to3 turtledemo ensurepip pydoc_data encodings distutils "
    "msilib venv _pyrepl".split()
)
_FILE_LIMIT, _CODE_LIMIT = 60_000, 1_000_000  # characters, before the indents are collapsed
_WORD = re.compile(r"(?<![\w`'.*\"/\\-])[a-z]{3,9}(?![\w`'*\"(/\\-])")  # not part of a name or path


def _build() -> dict[str, str]:
    """Read the standard library and return the text of the nine parts."""
    found: dict[str, list[str]] = {part: [] for part in _PARTS}
    seen: set[str] = set()
    code_size = 0
    for name, texts, code in _documents():
        split = _split_of(name)
        for paragraph in (p for text in texts for p in _paragraphs(text)):
            if paragraph not in seen:
                seen.add(paragraph)
                found[f"prose_{split}"].append(paragraph + "\n")
        if len(code) >= 400 and code_size < _CODE_LIMIT:
            code = code[:_FILE_LIMIT].rstrip()
            code_size += len(code)
            found[f"code_{split}"].append(_collapse_indents(code) + "\n\n")
    for word in sorted({word for paragraph in seen for word in _WORD.findall(paragraph)}):
        found[f"words_{_split_of(word)}"].append(word + "\n")
    joined = {key: "".join(pieces).rstrip("\n") for key, pieces in found.items()}
    if min(map(len, joined.values())) < WINDOW:
        raise TextError(
            f"Python {platform.python_version()} has too few standard-library sources in "
            f"{sysconfig.get_path('stdlib')} (they may be stripped) to build a corpus; "
            "pass a text of your own with --text FILE, or use a Python installed with its sources"
        )
    return joined


def _split_of(name: str) -> str:
    # By a hash of the name, so that a file stays in its split whatever else a version adds.
    return {8: "val", 9: "test"}.get(zlib.crc32(name.encode()) % 10, "train")


# The shipped models were trained, and all results measured, on the library without these letters.
_LEFT_OUT = dict.fromkeys(map(ord, LETTERS))


def _documents() -> Iterator[tuple[str, list[str], str]]:
    """Yield (name, texts with prose, code) of each help topic and module, in a fixed order."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions leave it out
        topics = {}
    for topic in sorted(topics):
        yield f"topic:{topic}", [topics[topic]], ""
    for name, source in _modules():
        docstrings, code = _docstrings_and_code(source.translate(_LEFT_OUT))
        yield name, docstrings, "" if "/" in name else code


def _modules() -> Iterator[tuple[str, str]]:
    """Yield (name, source) of "abc.py", "asyncio/base_events.py", ...: all modules but tests, tools
    and tables. Where Python runs in a browser, its library is in a zip file."""
    folder = Path(sysconfig.get_path("stdlib"))
    archive = next((path for path in sys.path if path.endswith(".zip") and is_zipfile(path)), None)
    if archive is None or (folder / "os.py").is_file():
        for name in _ours(path.relative_to(folder).as_posix() for path in _files(folder)):
            yield name, (folder / name).read_text("utf-8", "replace")
    else:
        with ZipFile(archive) as library:
            for name in _ours(library.namelist()):
                yield name, library.read(name).decode("utf-8", "replace")


def _files(folder: Path) -> Iterator[Path]:
    for name in sys.stdlib_module_names:
        if (folder / f"{name}.py").is_file():
            yield folder / f"{name}.py"
        yield from (path for path in (folder / name).rglob("*.py") if path.is_file())


def _ours(names: Iterable[str]) -> list[str]:
    """Those of the standard library's modules that are read, in order."""
    return sorted(
        name
        for name in names
        if name.endswith(".py")
        and name.partition("/")[0].removesuffix(".py") in sys.stdlib_module_names
        and _SKIPPED.isdisjoint(name.split("/"))
    )


# A docstring is a string on its own line below one that ends in a colon, or first in its file. This
# is not as exact as ast.parse, but it misses none of the library's and is faster.
_END = r"[ \t]*(?:#[^\n]*)?\n"  # of a line, with or without a comment
_DOCSTRING = re.compile(
    rf"(?P<before>(?:\A|:{_END})(?:{_END})*)"
    r"[ \t]*[rRuU]?(?P<quotes>\"{3}|'{3}|\"|')"
    rf"(?P<text>(?:\\.|(?!(?P=quotes))[^\\])*)(?P=quotes){_END}",
    re.DOTALL,
)


def _docstrings_and_code(source: str) -> tuple[list[str], str]:
    """Separate a module's docstrings from its code, which loses its comment-only lines too."""
    docstrings = []

    def take(found: re.Match[str]) -> str:
        docstrings.append(found["text"].replace("\\\n", ""))
        return found["before"]

    code = re.sub(r"(?m)^[ \t]*#.*\n|[ \t]+$", "", _DOCSTRING.sub(take, source))
    return docstrings, re.sub(r"\n{3,}", "\n\n", to_alphabet(code)).strip("\n")


def _collapse_indents(code: str) -> str:
    # Raw code is a quarter leading spaces: any model looks good by learning the indent alone.
    return re.sub(r"(?m)^ +", lambda indent: " " * min(6, len(indent[0]) // 4), code)


_LETTERS_AND_SPACE = b" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the prose paragraphs of a text, each on one line: no examples, tables, short scraps."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(to_alphabet(text))):
        paragraph = " ".join(block.split())
        if len(paragraph) < 40 or block.lstrip("\n").startswith(" ") or ">>>" in block:
            continue
        others = paragraph.encode("ascii").translate(None, _LETTERS_AND_SPACE)
        if len(others) <= 0.12 * len(paragraph) and paragraph.count(" ") >= 0.11 * len(paragraph):
            yield paragraph
