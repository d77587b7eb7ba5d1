"""Where the symbols come from: three data sets that need no download.

A language model needs text, and every Python installation carries some megabytes of it. From the
running interpreter's own standard library we take PROSE (its documentation), CODE (its modules)
and WORDS (the English words of the prose, for the string tasks). PROSE is what a base model learns
first; CODE and new string tasks are what it is fine-tuned to. A text file of the user's own can
take the place of either corpus. A character is a symbol, so there is no tokenizer to train or ship.

The windows are those of nanoGPT's get_batch. Imports files.py.
"""

import functools
import importlib
import inspect
import os
import platform
import re
import sys
import sysconfig
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from minilora.system.errors import UsageError
from minilora.system.files import write_atomically

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
IGNORE_INDEX = -100  # the target of a position that does not count in the loss

_SPLITS = ("train", "val", "test")
_PARTS = [f"{kind}_{split}" for kind in ("prose", "code", "words") for split in _SPLITS]
_WINDOW = 65  # symbols in one window of the shipped language model: 64 inputs, shifted by one
_OUTSIDE = re.compile(r"[^\n -~]")
_BYTE_OF_ID = np.frombuffer(ALPHABET.encode("ascii"), np.uint8)
_ID_OF_BYTE = np.zeros(128, np.uint8)
_ID_OF_BYTE[_BYTE_OF_ID] = np.arange(len(ALPHABET))
_LOOKALIKES = str.maketrans(
    {**dict.fromkeys("‘’‚‛′‹›", "'"), **dict.fromkeys("“”„‟«»", '"')}
    | {**dict.fromkeys("‐‒–−", "-"), "—": "--", "―": "--", "•": "*", "⁄": "/"}
    | {"\u2028": "\n", "\u2029": "\n"}
)


class TextError(UsageError):
    """A text cannot be used; the message is one sentence that says why and what to do."""


def to_alphabet(text: str) -> str:
    """Return `text` in the 96 symbols of ALPHABET.

    Line ends become newlines, a tab four spaces, typographic quotes, dashes, dots and spaces their
    ASCII look-alikes, and accented letters lose the accent; what is left outside is dropped.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).translate(_LOOKALIKES)
    return _OUTSIDE.sub("", text)


def encode(text: str) -> np.ndarray:
    """Return the symbol ids of `text`, uint8 (n,).

    Raises ValueError, naming the character, if one is not in ALPHABET.
    """
    if stranger := _OUTSIDE.search(text):
        raise UsageError(
            f"character {stranger[0]!r} (U+{ord(stranger[0]):04X}) at position {stranger.start()} "
            f"is not one of the {len(ALPHABET)} symbols; pass the text through to_alphabet() first"
        )
    return _ID_OF_BYTE[np.frombuffer(text.encode("ascii"), np.uint8)]


def decode(ids: Sequence[int] | np.ndarray) -> str:
    """Return the text of symbol ids, any integer array-like of shape (n,).

    Raises ValueError for an id outside 0..95, such as a masked target.
    """
    ids = np.asarray(ids)
    if not ids.size:
        return ""
    if ids.min() < 0 or ids.max() >= len(ALPHABET):
        raise UsageError(
            f"ids go from {ids.min()} to {ids.max()}, symbols from 0 to {len(ALPHABET) - 1}; "
            "leave out masked targets (IGNORE_INDEX) before decoding"
        )
    return _BYTE_OF_ID[ids].tobytes().decode("ascii")


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text in three parts, each uint8 (n,): learn on train, choose on val, report on test."""

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def load_corpus(name: str) -> Corpus:
    """Return "prose" or "code" of the running interpreter's standard library.

    The first call takes a second or two, later ones read the cache. Raises ValueError for another
    name, TextError if the standard library comes without sources.
    """
    if name not in ("prose", "code"):
        raise UsageError(f"there is no corpus {name!r}; use 'prose' or 'code'")
    parts = _library()
    return Corpus(name, *(parts[f"{name}_{split}"] for split in _SPLITS))


def load_words() -> dict[str, list[str]]:
    """Return lower-case words of 3 to 9 letters found in PROSE, sorted: {"train", "val", "test"}.

    Raises TextError if the standard library comes without sources.
    """
    parts = _library()
    return {split: decode(parts[f"words_{split}"]).split("\n") for split in _SPLITS}


@functools.cache
def _library() -> dict[str, np.ndarray]:
    """All nine parts, {"prose_train": uint8 (n,), ...}, from the cache or else from the sources."""
    parts = _read_cache()
    if parts is None:
        parts = {key: encode(text) for key, text in _build().items()}
        _write_cache(parts)
    for part in parts.values():
        part.flags.writeable = False  # every caller is handed the same arrays
    return parts


def _read_cache() -> dict[str, np.ndarray] | None:
    try:
        with _cache_file().open("rb") as file, np.load(file) as stored:
            return {part: stored[part] for part in _PARTS}
    except Exception:  # whatever is wrong with a cache file, the remedy is to build it again
        return None


def _cache_file() -> Path:
    # The recipe is this file: hashing its source, no edit can leave an outdated cache behind. The
    # folder is part of it, as two builds of one Python version may differ in their modules.
    recipe = Path(__file__).read_bytes() + sysconfig.get_path("stdlib").encode()
    name = f"stdlib-{platform.python_version()}-{zlib.crc32(recipe):08x}.npz"
    return Path(platformdirs.user_cache_dir("minilora"), name)


def _write_cache(parts: dict[str, np.ndarray]) -> None:
    try:
        cache = _cache_file()
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, lambda path: np.savez(path, allow_pickle=False, **parts))
    except OSError:  # a read-only or full disk costs a second at the next start, nothing else
        pass


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
    parts = {key: "".join(pieces).rstrip("\n") for key, pieces in found.items()}
    if min(map(len, parts.values())) < _WINDOW:
        raise TextError(
            f"Python {platform.python_version()} has too few standard-library sources in "
            f"{sysconfig.get_path('stdlib')} (they may be zipped or stripped) to build a corpus; "
            "pass a text of your own with --text FILE, or use a Python installed with its sources"
        )
    return parts


def _split_of(name: str) -> str:
    # By a hash of the name, so that a file stays in its split whatever else a version adds.
    return {8: "val", 9: "test"}.get(zlib.crc32(name.encode()) % 10, "train")


def _documents() -> Iterator[tuple[str, list[str], str]]:
    """Yield (name, texts with prose, code) of each help topic and module, in a fixed order."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions leave it out
        topics = {}
    for topic in sorted(topics):
        yield f"topic:{topic}", [topics[topic]], ""
    folder = Path(sysconfig.get_path("stdlib"))
    for name in _modules(folder):
        docstrings, code = _docstrings_and_code((folder / name).read_text("utf-8", "replace"))
        yield name, docstrings, "" if "/" in name else code


def _modules(folder: Path) -> list[str]:
    """Return "abc.py", "asyncio/base_events.py", ...: all modules but tests, tools and tables."""
    found = [folder / f"{name}.py" for name in sys.stdlib_module_names]
    for name in sys.stdlib_module_names:
        found += (folder / name).rglob("*.py")
    names = [path.relative_to(folder) for path in found if path.is_file()]
    return sorted(name.as_posix() for name in names if _SKIPPED.isdisjoint(name.parts))


# A docstring is a string on its own line below one that ends in a colon, or first in its file. This
# is not exact, as ast.parse is, but it finds all 7,183 of Python 3.11 and 2 strings too many, and
# the whole build takes 0.7 s instead of 1.7.
_END = r"[ \t]*(?:#[^\n]*)?\n"  # of a line, with or without a comment
_DOCSTRING = re.compile(
    rf"(?P<before>(?:\A|:{_END})(?:{_END})*)"
    r"[ \t]*[rRuU]?(?P<quotes>\"{3}|'{3}|\"|')"
    rf"(?P<text>(?:\\.|(?!(?P=quotes)).)*+)(?P=quotes){_END}",
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


def load_text(path: str | os.PathLike[str]) -> Corpus:
    """Return the text file `path` as a corpus: 90 % train, 5 % val, 5 % test, in this order.

    The file is UTF-8, with or without byte order mark, with any line ends. Raises TextError if it
    cannot be read, is not text, has too few characters, or is in a script the alphabet lacks.
    """
    text = _read_text(Path(path))
    if not text.strip():
        raise TextError(f"{path} is empty; choose a file of at least {20 * _WINDOW} characters")
    share = _representable_share(text)
    if share < 0.5:
        raise TextError(
            f"only {share:.0%} of the characters in {path} can be written in the model's "
            f"{len(ALPHABET)} symbols (printable ASCII); choose a text in the Latin alphabet"
        )
    ids = encode(to_alphabet(text))
    if len(ids) < 20 * _WINDOW:  # so that a twentieth holds one window
        raise TextError(
            f"{path} is too short: it has {len(ids)} usable characters and needs at least "
            f"{20 * _WINDOW}; choose a longer text"
        )
    train, val, test = np.split(ids, [len(ids) * 90 // 100, len(ids) * 95 // 100])
    return Corpus(Path(path).name, train, val, test)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise TextError(f"there is no file {path}; check the name and the folder") from None
    except OSError as error:
        if path.is_dir():
            raise TextError(f"{path} is a folder; choose a text file inside it") from None
        raise TextError(f"{path} cannot be read ({error.strerror}); choose another file") from None
    if b"\0" in raw:
        raise TextError(
            f"{path} holds NUL bytes, so it is a binary file or UTF-16; "
            "choose a text file, saved as UTF-8"
        )
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8: byte {raw[error.start]:#04x} at offset {error.start} does not "
            "fit; open it in an editor and save it again as UTF-8"
        ) from None


def _representable_share(text: str) -> float:
    # Spaces do not count: in any script they are one character in six.
    counts = Counter(unicodedata.normalize("NFC", text))
    total = sum(n for character, n in counts.items() if not character.isspace())
    kept = sum(n for character, n in counts.items() if to_alphabet(character).strip())
    return kept / total


def random_windows(
    tokens: np.ndarray, batch_size: int, block_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows of `tokens` (n,) for training: inputs and targets, int64 (B, T) each.

    targets[b, t] is the symbol that follows ids[b, t]. Raises ValueError if n < T + 1.
    """
    _check_length(tokens, block_size)
    return _windows(tokens, rng.integers(len(tokens) - block_size, size=batch_size), block_size)


def spaced_windows(
    tokens: np.ndarray, count: int, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` evenly spaced windows of `tokens` (n,) for evaluation, as random_windows does.

    The first window starts the text and the last one ends it; every call returns the same.
    """
    _check_length(tokens, block_size)
    last = len(tokens) - block_size - 1
    return _windows(tokens, np.arange(count) * last // max(count - 1, 1), block_size)


def _check_length(tokens: np.ndarray, block_size: int) -> None:
    if len(tokens) <= block_size:
        raise UsageError(
            f"a window of block_size={block_size} takes {block_size + 1} symbols and there are "
            f"only {len(tokens)}; use a longer text or a smaller block_size"
        )


def _windows(
    tokens: np.ndarray, starts: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    windows = tokens[starts[:, None] + np.arange(block_size + 1)]  # (n,) -> (B, T + 1)
    windows = windows.astype(np.int64)
    return windows[:, :-1], windows[:, 1:]  # (B, T + 1) -> (B, T) each
