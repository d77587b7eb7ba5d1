"""Kinds of file that hold texts: rows, cards, exam, progress, pairs, tokenizers, notebooks."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tokens
from gguf_files import gguf
from kinds import ANEW, AS_SAID, Kind, contents, need_bytes
from mutations import Files, Rng, pick
from plain_readers import Unreadable, is_float, is_int, need, plain_gguf, plain_json, plain_object
from safetensors import SafetensorError
from safetensors.numpy import load

from minilora import studies
from minilora.experiments.exam_items import EXAM_FILE, load_exam
from minilora.experiments.sweeps import run_files, sweep
from minilora.hub.tokenizers import load_tokenizer
from minilora.learn.exam.cards import CARDS_FILE, load_cards
from minilora.learn.exam.progress import Progress
from minilora.learn.notebooks.grading import column, read_table, write_table
from minilora.learn.notebooks.lessons import Task, read_cells, read_lesson
from minilora.text import library
from minilora.text.alphabet import decode
from minilora.text.corpora import load_text
from minilora.text.pairs import read_pairs

REPOSITORY = Path(__file__).parents[2]


def halves(n: int) -> list[dict[str, Any]]:
    """A run of a sweep that takes no time, and is noted."""
    _RUNS.append(n)
    return [{"n": n, "half": n / 2, "name": "ä"}]


_RUNS: list[int] = []
_SETTINGS = [{"n": 3}, {"n": 4}, {"n": 50}]


class SweepRuns(Kind):
    name = "sweep's files"
    makes_anew = True

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return _swept()

    def load(self, folder: Path, target: Any) -> Any:
        _RUNS.clear()
        return sweep(halves, _SETTINGS, folder, jobs=1, quiet=True), bool(_RUNS)

    def judge(self, files: Files, loaded: Any) -> str:
        rows, anew = loaded
        need(rows == [row for s in _SETTINGS for row in halves(**s)], f"rows: {rows!r:.200}")
        return ANEW if anew else AS_SAID


@cache
def _swept() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        sweep(halves, _SETTINGS, place, jobs=1, quiet=True)
        assert {f.name for f in run_files(halves, _SETTINGS, place)} == set(os.listdir(place))
        return contents(Path(place))


class Results(Kind):
    """Results of a study as they come with the package."""

    name = "results"
    studies = ("rank_sweep", "alpha_sweep", "forgetting")

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return {"rank_sweep.json": _results(int(rng.integers(3)))}

    def load(self, folder: Path, target: Any) -> Any:
        with mock.patch.object(studies, "SHIPPED", folder):
            return studies.shipped_rows("rank_sweep")

    def judge(self, files: Files, loaded: Any) -> str:
        (raw,) = need_bytes(files, "rank_sweep.json")
        rows = plain_object(raw).get("rows")
        need(isinstance(rows, list) and rows, "no rows")
        need(all(isinstance(row, dict) for row in rows), "a row is none")
        need(loaded == rows, "other rows")
        return AS_SAID


@cache
def _results(number: int) -> bytes:
    whole = json.loads((studies.SHIPPED / "rank_sweep.json").read_text("utf-8"))
    rows = [row | {"losses": row.get("losses", [])[:3]} for row in whole["rows"]]
    return json.dumps(whole | {"rows": rows[number : number + 4]}).encode()


class Cards(Kind):
    name = "cards.toml"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        head, *cards = CARDS_FILE.read_text("utf-8").split("[[card]]")
        chosen = rng.choice(len(cards), 4, replace=False)
        return {"cards.toml": "[[card]]".join([head, *(cards[i] for i in chosen)]).encode()}

    def load(self, folder: Path, target: Any) -> Any:
        return load_cards(folder / "cards.toml")

    def judge(self, files: Files, loaded: Any) -> str:
        entries = _toml(files, "cards.toml").get("card")
        need(isinstance(entries, list) and len(entries) == len(loaded), "other cards")
        for entry, card in zip(entries, loaded, strict=True):
            _need_same(entry, card)
            need(is_int(card.difficulty, 1, 5), "difficulty")
        return AS_SAID


def _toml(files: Files, name: str) -> dict[str, Any]:
    (raw,) = need_bytes(files, name)
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no TOML: {error}") from None


def _need_same(entry: Any, found: Any) -> None:
    """The fields of an object are the entries of a table: texts, numbers, and lists of them."""
    need(isinstance(entry, dict), "an entry is no table")
    for key, value in entry.items():
        need(hasattr(found, key), f"{key} is not kept")
        one = getattr(found, key)
        if isinstance(value, list):
            need(isinstance(one, tuple) and len(one) == len(value), key)
            for item, kept in zip(value, one, strict=True):
                if isinstance(item, dict):
                    _need_same(item, kept)
                else:
                    need(isinstance(item, str) and item == kept, f"{key} has {kept!r:.40}")
        else:
            plain = isinstance(value, str) or (type(value) is int and key == "difficulty")
            need(plain and one == value, f"{key} is {one!r:.40}")


class Exam(Kind):
    name = "exam.toml"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return {"exam.toml": EXAM_FILE.read_bytes()}

    def load(self, folder: Path, target: Any) -> Any:
        return load_exam(folder / "exam.toml")

    def judge(self, files: Files, loaded: Any) -> str:
        read = _toml(files, "exam.toml")
        need(isinstance(read.get("paragraph"), str), "no paragraph")
        need(loaded.paragraph == read["paragraph"].strip(), "another paragraph")
        need(list(loaded.samples) == read.get("samples"), "other samples")
        need(all(isinstance(text, str) for text in loaded.samples), "a sample is no text")
        lists = {"pair": loaded.pairs, "placebo": loaded.placebo, "question": loaded.questions}
        lists |= {"statement": loaded.statements, "control": loaded.controls}
        for key, found in lists.items():
            entries = read.get(key)
            need(isinstance(entries, list) and len(entries) == len(found), key)
            for entry, one in zip(entries, found, strict=True):
                _need_same(entry, one)
        return AS_SAID


class Learned(Kind):
    """What a learner has answered; a file that cannot be read is kept under another name."""

    name = "progress"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return {"progress.json": _progress(int(rng.integers(3)))}

    def load(self, folder: Path, target: Any) -> Any:
        progress = Progress(folder / "progress.json")
        return progress, {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}

    def judge(self, files: Files, loaded: Any) -> str:
        progress, left = loaded
        content = files["progress.json"]
        if isinstance(content, bytes):
            need(content in left.values(), "what was in the file is nowhere")
        if progress.note:
            need("\n" not in progress.note and len(progress.note) < 400, "the note is long")
            entries = {}
            if progress.cards:
                entries = plain_object(content)["cards"]
            need(all(entries[k] == v for k, v in progress.cards.items()), "other cards")
            return ANEW
        if not isinstance(content, bytes) or not content.strip():
            need(not progress.cards and content != "/dev/zero", "cards from nowhere")
            return AS_SAID
        data = plain_object(content)
        need(data.get("minilora progress") == 1, "version")
        need(progress.cards == data.get("cards"), "other cards")
        for entry in progress.cards.values():
            need(is_int(entry["state"], 1, 3), "state")
            need(is_int(entry["answered"], 0) and is_int(entry["right"], 0, entry["answered"]), "n")
            need(datetime.fromisoformat(entry["due"]).tzinfo is not None, "due")
            for key in ("stability", "difficulty"):
                need(entry[key] is None or is_float(entry[key], 0, 1e7), key)
        return AS_SAID


@cache
def _progress(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    cards = {}
    for name in ("what-is-lora", "why-b-is-zero", "ß"):
        answered = int(rng.integers(1, 9))
        cards[name] = {
            "state": 2, "step": None, "stability": 2.3, "difficulty": 2.1 + seed,
            "due": "2026-11-28T09:00:00+00:00", "last_review": "2026-11-26T09:00:00+00:00",
            "answered": answered, "right": int(rng.integers(answered)),
        }  # fmt: skip
    return json.dumps({"minilora progress": 1, "cards": cards, "later": {"x": [1]}}).encode()


class _NoCache(Exception):  # noqa: N818
    """The text would be built from its sources."""


class Corpus(Kind):
    """The cache of the text that every Python carries; of texts so short that building is quick."""

    name = "corpus cache"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return _cached(int(rng.integers(3)))

    def load(self, folder: Path, target: Any) -> Any:
        with _cache_in(folder), mock.patch.object(library, "_build", side_effect=_NoCache):
            try:
                return library.parts.__wrapped__()
            except _NoCache:
                return None

    def judge(self, files: Files, loaded: Any) -> str:
        if loaded is None:  # nobody need be told: nothing is lost
            return ANEW
        ((_, raw),) = files.items()
        need(isinstance(raw, bytes), "there is no file")
        try:
            stored = load(raw)
        except (SafetensorError, ValueError) as error:
            raise Unreadable(f"{error}") from None
        for key, array in loaded.items():
            need(np.array_equal(stored.get(key), array) and array.dtype == np.uint8, key)
        wholes = [_texts(seed) for seed in range(3)]
        texts = {key: decode(array) for key, array in loaded.items()}
        need(texts in wholes, "it is no text that was ever built")
        return AS_SAID


def _cache_in(folder: Path) -> Any:
    return mock.patch.object(library.platformdirs, "user_cache_dir", return_value=f"{folder}")


def _texts(seed: int) -> dict[str, str]:
    return {key: f"{key} {seed} is a text. " * 20 for key in library._PARTS}


@cache
def _cached(seed: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place, _cache_in(Path(place)):
        with mock.patch.object(library, "_build", return_value=_texts(seed)):
            library.parts.__wrapped__()
        return contents(Path(place))


class Texts(Kind):
    """A text to train on."""

    name = "text"
    times = 6  # as corpora.py says, which therefore takes at most 64 MiB

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        text = (REPOSITORY / "README.md").read_text("utf-8")
        start = int(rng.integers(1000))
        return {"notes.txt": text[start : start + 6000].encode()}

    def load(self, folder: Path, target: Any) -> Any:
        return load_text(folder / "notes.txt")

    def judge(self, files: Files, loaded: Any) -> str:
        (raw,) = need_bytes(files, "notes.txt")
        need(b"\0" not in raw, "NUL")
        text = _utf8(raw)
        found = decode(np.concatenate([loaded.train, loaded.val, loaded.test]))
        if text.isascii():
            text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
            need(found == re.sub(r"[^\n -~]", "", text), "another text")
        else:
            plain = re.sub(r"[^A-Za-z0-9]", "", text)
            rest = iter(re.sub(r"[^A-Za-z0-9]", "", found))
            need(all(letter in rest for letter in plain), "letters are lost")
        return AS_SAID


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{error}") from None


class Asked(Kind):
    """Questions and answers to learn from, a JSON object on each line."""

    name = "pairs"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        names = pick(
            rng, [("question", "answer"), ("prompt", "completion"), ("instruction", "output")]
        )
        lines: list[Any] = [
            dict(zip(names, (f"What is {i}?", f"{i}, ü"), strict=True)) for i in range(9)
        ]
        said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        lines.append({"messages": said})
        lines.append({"instruction": "Add", "input": "1 and 2", "output": "3"})
        return {"pairs.jsonl": "\n".join(json.dumps(line) for line in lines).encode()}

    def load(self, folder: Path, target: Any) -> Any:
        return read_pairs(folder / "pairs.jsonl")

    def judge(self, files: Files, loaded: Any) -> str:
        (raw,) = need_bytes(files, "pairs.jsonl")
        lines = [line for line in _utf8(raw).split("\n") if line.strip()]
        need(len(lines) == len(loaded.chats), "other chats")
        for line, chat in zip(lines, loaded.chats, strict=True):
            entry = plain_object(line.encode())
            if "messages" in entry:
                need(isinstance(entry["messages"], list), "messages")
                wanted = [(m["role"], m["content"]) for m in entry["messages"]]
                need(all(isinstance(text, str) for pair in wanted for text in pair), "no text")
            else:
                wanted = [("user", self._question(entry)), ("assistant", self._answer(entry))]
            need([(m["role"], m["content"]) for m in chat] == wanted, "another chat")
        return AS_SAID

    @staticmethod
    def _answer(entry: Mapping[str, Any]) -> str:
        found = [entry[key] for key in ("answer", "completion", "output") if key in entry]
        need(len(found) == 1 and isinstance(found[0], str) and found[0].strip(), "no answer")
        return found[0]

    @staticmethod
    def _question(entry: Mapping[str, Any]) -> str:
        found = [entry[key] for key in ("question", "prompt", "instruction") if key in entry]
        if entry.get("input") not in (None, "") and "instruction" in entry:
            found = ["\n\n".join([*found, entry["input"]])]
        need(len(found) == 1 and isinstance(found[0], str) and found[0].strip(), "no question")
        return found[0]


class TokenizerFiles(Kind):
    """tokenizer.json and what stands beside it."""

    name = "tokenizer"
    bit_for_bit = ("tokenizer.json",)  # PyPI's tokenizers takes no byte order mark
    texts = ("LoRA learns a low-rank change.", "2021 <|im_end|> ü", "a  b\n\tc")

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return _tokenizer_files(int(rng.integers(3)))

    def load(self, folder: Path, target: Any) -> Any:
        tokenizer = load_tokenizer(folder)
        ids = [tokenizer.encode(text, special=True).tolist() for text in self.texts]
        return tokenizer, ids, [tokenizer.decode(some, special=True) for some in ids]

    def judge(self, files: Files, loaded: Any) -> str:
        from tokenizers import Tokenizer

        tokenizer, ids, texts = loaded
        (raw,) = need_bytes(files, "tokenizer.json")
        plain_object(raw)
        try:
            backend = Tokenizer.from_str(_utf8(raw))
            backend.no_padding()
            backend.no_truncation()
            wanted = [backend.encode(t, add_special_tokens=False).ids for t in self.texts]
            said = [backend.decode(some, skip_special_tokens=False) for some in wanted]
        except BaseException as error:  # a panic in its Rust code is no Exception
            raise Unreadable(f"{error}") from None
        need(ids == wanted and texts == said, "other ids or texts")
        about = self._beside(files, "tokenizer_config.json")
        special = self._beside(files, "special_tokens_map.json") | about
        names = {}
        for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
            value = special.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            need(value is None or isinstance(value, str), f"{name} is {value!r:.40}")
            names |= {name: value} if value else {}
        need(tokenizer.names == names, f"names {tokenizer.names}")
        ends = self._beside(files, "generation_config.json").get("eos_token_id")
        if ends is None or ends == []:
            one = backend.token_to_id(names["eos_token"]) if "eos_token" in names else None
            ends = [] if one is None else [one]
        ends = ends if isinstance(ends, list) else [ends]
        need(all(is_int(i, 0) for i in ends), "eos_token_id")
        need(tokenizer.eos_ids == tuple(sorted(set(ends))), f"ends {tokenizer.eos_ids}")
        template = _template(files.get("chat_template.jinja"), about.get("chat_template"))
        need(_lines(tokenizer.chat_template or "") == _lines(template or ""), "another template")
        return AS_SAID

    @staticmethod
    def _beside(files: Files, name: str) -> dict[str, Any]:
        content = files.get(name)
        return plain_object(content) if isinstance(content, bytes) else {}


def _template(file: Any, said: Any) -> str | None:
    """What a file of its own says, or else tokenizer_config.json; of several there, the default."""
    if isinstance(file, bytes):
        return _utf8(file)
    if isinstance(said, list):
        need(all(isinstance(one, dict) for one in said), "a template is no object")
        said = next((one.get("template") for one in said if one.get("name") == "default"), None)
    need(said is None or isinstance(said, str), f"the template is {said!r:.40}")
    return said


def _lines(text: str) -> list[str]:
    return text.removeprefix("\ufeff").splitlines()


@cache
def _tokenizer_files(number: int) -> dict[str, bytes]:
    """The chat template in a file of its own, in tokenizer_config.json, or one of several there."""
    with tempfile.TemporaryDirectory() as place:
        files = contents(tokens.write_tokenizer(Path(place)))
    files["generation_config.json"] = b'{"eos_token_id": [2, 0], "max_length": 20}'
    if number:
        template = files.pop("chat_template.jinja").decode()
        files["special_tokens_map.json"] = files["tokenizer_config.json"]
        others = [{"name": "tools", "template": "none"}, {"name": "default", "template": template}]
        about = {"chat_template": template if number == 1 else others}
        files["tokenizer_config.json"] = json.dumps(about).encode()
    return files


class TokenizersInGguf(Kind):
    """The tokenizer in a .gguf file's metadata."""

    name = "tokenizer in a .gguf"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return {"tiny.gguf": _gguf_tokenizer(pick(rng, ["gpt-2", "smollm", "llama-bpe", "qwen2"]))}

    def load(self, folder: Path, target: Any) -> Any:
        tokenizer = load_tokenizer(folder / "tiny.gguf")
        return tokenizer, [tokenizer.encode(text) for text in TokenizerFiles.texts]

    def judge(self, files: Files, loaded: Any) -> str:
        tokenizer, _ = loaded
        (raw,) = need_bytes(files, "tiny.gguf")
        said = plain_gguf(raw).metadata
        about = {k.removeprefix("tokenizer.ggml."): v for k, v in said.items()}
        words, kinds, merges = (about.get(key) for key in ("tokens", "token_type", "merges"))
        need(about.get("model") == "gpt2", "another kind")
        need(all(isinstance(some, list) for some in (words, kinds, merges)), "no lists")
        need(len(words) == len(kinds) == len(set(words)), "lists that do not fit")
        need(tokenizer.backend.get_vocab() == {word: i for i, word in enumerate(words)}, "words")
        special = {word: i for i, word in enumerate(words) if kinds[i] == 3}
        need(tokenizer.special_ids == special, "special tokens")
        stored = json.loads(tokenizer.backend.to_str())["model"]["merges"]
        need([" ".join(pair) for pair in stored] == merges, "merges")
        ends = {about[key] for key in ("eos_token_id", "eot_token_id") if key in about}
        need(set(tokenizer.eos_ids) == ends, "ends")
        need(tokenizer.chat_template == said.get("tokenizer.chat_template"), "template")
        return AS_SAID


@cache
def _gguf_tokenizer(rule: str) -> bytes:
    return gguf(tokens.gguf_metadata(pre=rule), {"x": ("F32", (4,), b"\0" * 16)})


class GradeTables(Kind):
    """A class's points; a table of other exercises is no table for these."""

    name = "table of grades"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return {"grades.csv": _grades(int(rng.integers(3)))}

    def load(self, folder: Path, target: Any) -> Any:
        return read_table(folder / "grades.csv", _tasks())

    def judge(self, files: Files, loaded: Any) -> str:
        if files["grades.csv"] in ("missing", "a broken link"):
            need(not loaded, "rows from nowhere")
            return AS_SAID
        (raw,) = need_bytes(files, "grades.csv")
        lines = list(csv.reader(io.StringIO(_utf8(raw), newline="")))
        need(lines, "no lines")
        if not loaded:
            need(lines[0] != _columns(), "its rows are lost")
            return ANEW
        need(lines[0] == _columns(), "other columns")
        rows = [dict(zip(lines[0], line, strict=False)) for line in lines[1:] if line]
        need(
            [*loaded.values()] == [*{r["student"] + r["notebooks"]: r for r in rows}.values()], "?"
        )
        need(all(len(line) == len(lines[0]) for line in lines[1:] if line), "a short line")
        for row in rows:
            points = [row[column(task)] for task in _tasks()]
            for task, given in zip(_tasks(), points, strict=True):
                need(given in ("", *map(str, range(task.heading.points + 1))), "points")
        return AS_SAID


@cache
def _tasks() -> list[Task]:
    return list(read_lesson(REPOSITORY / "lessons" / "05_counting_parameters.ipynb").tasks)


def _columns() -> list[str]:
    return ["student", "points", "of", *map(column, _tasks()), "notebooks"]


@cache
def _grades(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    rows = []
    for name in ("Ada", "Bo, jr.", "Çelik"):
        points = [int(rng.integers(task.heading.points + 1)) for task in _tasks()]
        most = sum(task.heading.points for task in _tasks())
        cells = [name, sum(points), most, *points, f"{rng.integers(2**30):08x}"]
        rows.append(dict(zip(_columns(), map(str, cells), strict=True)))
    with tempfile.TemporaryDirectory() as place:
        write_table(rows, Path(place, "grades.csv"))
        return Path(place, "grades.csv").read_bytes()


class Notebooks(Kind):
    """What a student hands in."""

    name = "notebook"

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        return {"05_counting_parameters.ipynb": _notebook(int(rng.integers(3)))}

    def load(self, folder: Path, target: Any) -> Any:
        return read_cells(folder / "05_counting_parameters.ipynb")

    def judge(self, files: Files, loaded: Any) -> str:
        (raw,) = need_bytes(files, "05_counting_parameters.ipynb")
        cells = plain_object(raw).get("cells")
        need(isinstance(cells, list), "no cells")
        wanted = []
        for cell in cells:
            need(isinstance(cell, dict) and isinstance(cell.get("cell_type"), str), "a cell")
            text = cell.get("source")
            need(isinstance(text, str | list), "no source")
            need(all(isinstance(line, str) for line in text), "a line is no text")
            wanted.append((cell["cell_type"], "".join(text)))
        need([tuple(cell) for cell in loaded] == wanted, "other cells")
        return AS_SAID


@cache
def _notebook(number: int) -> bytes:
    whole = plain_json((REPOSITORY / "lessons" / "05_counting_parameters.ipynb").read_bytes())
    cells = [cell | {"outputs": []} for cell in whole["cells"]]
    return json.dumps(whole | {"cells": cells[4 * number : 4 * number + 6]}).encode()


TEXTS: list[Kind] = [
    SweepRuns(), Results(), Cards(), Exam(), Learned(), Corpus(), Texts(), Asked(), Notebooks(),
    GradeTables(),
]  # fmt: skip
if importlib.util.find_spec("tokenizers"):
    TEXTS += [TokenizerFiles(), TokenizersInGguf()]
