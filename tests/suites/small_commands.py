"""Every command in small, for the suites that disturb them: what each is given and what it makes.

`in_small` makes what they do short, in the process that runs them: fewer examples are measured,
training is saved every other step, the page has few cards and the studies a few runs. What they do
with files and processes is as it always is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from learn.handed_in import EVEN, RIGHT, write_book
from small_exam import FEW, write_chat_model

from minilora.hub import load_adapter, load_model
from minilora.hub.safetensors_files import ADAPTER_FILES, MODEL_FILES
from minilora.hub.saves import read_config_file
from minilora.learn.exam.progress import Progress
from minilora.system import files
from minilora.system.errors import MiniloraError

NOTES = (
    "A rank is the number of independent rows of a matrix; LoRA's change has rank r. " * 60
).strip()
PAIRS = "".join(
    json.dumps({"question": f"What is {a} and {b}?", "answer": f"{a + b}"}) + "\n"
    for a in range(3)
    for b in range(4)
)
AS_IT_IS = (
    "AS_IT_IS"  # in the environment of a process that must measure as others, started anew, do
)
_TIMES = {  # in rows, logs and checkpoints: times, and what else differs from run to run
    "seconds", "seconds_per_step", "cpu_seconds_per_step", "peak_memory_bytes", "seal", "command",
    "machine",
}  # fmt: skip


def in_small() -> None:
    """Make the commands of this process short."""
    from minilora.cli import learning, studying
    from minilora.cli import training as training_commands
    from minilora.experiments import comparison, exam, tasks, tuning
    from minilora.learn.page import build

    text_loss, exact_match, write = tasks.text_loss, tasks.exact_match, comparison.write
    tasks.text_loss = lambda model, tokens, n: text_loss(
        model, tokens, n if AS_IT_IS in os.environ else 8
    )
    tasks.exact_match = lambda model, x, y: exact_match(model, x[:8], y[:8])
    comparison.write = lambda model, prompt, n, **o: write(model, prompt, 8, **o)
    comparison.step_memory = lambda training: 2**20
    training = tuning.Training
    often = lambda *given, save_every=0, **named: training(*given, save_every=2, **named)  # noqa: E731
    tuning.Training = training_commands.Training = often
    exam.load_exam = lambda: FEW
    exam.ANSWER = 3
    cards = build.load_cards()[:4]
    build.load_cards = lambda: cards
    learning.write_page = partial(build.write_page, marks=(0, 2))
    studies = studying.STUDIES
    few = [{"task": "reverse", "method": "lora", "r": r, "seed": 0, "steps": 2} for r in (1, 2)]
    small = replace(studies["rank_sweep"], settings=lambda seeds: few)
    drawn = {name: studies[name] for name in ("spectrum", "parameter_counts")}
    studies.clear()
    studies.update(drawn, rank_sweep=small)


def in_small_and_careless() -> None:
    """The same with a fault planted: files are written straight to their names."""
    in_small()
    careful = files.write_atomically
    for module in list(sys.modules.values()):
        if getattr(module, "write_atomically", None) is careful:
            vars(module)["write_atomically"] = lambda path, write: write(Path(path).resolve())


@dataclass(frozen=True)
class Command:
    """line: what is typed after `minilora`, in a folder where `given` has put its files. typed: the
    lines that it reads. timed: the names of files that hold times, which are only read; "out" if
    what it prints holds times, or says how it went on. before: a command that has been run there.
    cold: the library's text is not yet in the cache. steps_a_run: of each of a sweep's runs."""

    name: str
    line: str
    given: Callable[[Path], None] = lambda work: None
    typed: str = ""
    timed: Collection[str] = ()
    before: str = ""
    cold: bool = False
    steps_a_run: int = 0

    @property
    def as_it_is(self) -> bool:
        """Whether it does the same where it is not made short."""
        return self.name in _AS_THEY_ARE


_AS_THEY_ARE = {
    "sweep in processes", "spectrum of an adapter", "generate", "params", "inspect", "quiz", "exam",
    "cards", "lessons", "check", "grade",
}  # fmt: skip


def _text(work: Path) -> None:
    (work / "notes.txt").write_text(NOTES, "utf-8")


def _pairs(work: Path) -> None:
    (work / "pairs.jsonl").write_text(PAIRS, "utf-8")
    write_chat_model(work / "model")


def _books(work: Path) -> None:
    write_book(work / "class" / "ann.ipynb", RIGHT)
    write_book(work / "class" / "bob.ipynb", RIGHT, EVEN.replace("*", "+"))


def _book(work: Path) -> None:
    write_book(work / "mine.ipynb", RIGHT)


_FINETUNE = "finetune --text notes.txt --steps 5 --threads 1 --out tuned"
COMMANDS = [
    Command("finetune", _FINETUNE, _text, cold=True),
    # Of the same shapes: the config of one save would load beside the weights of the other.
    Command("finetune again", f"{_FINETUNE} --alpha 9", _text, before=_FINETUNE),
    Command("finetune whole", f"{_FINETUNE} --method full", _text),
    Command("finetune whole again", f"{_FINETUNE} --method full --seed 1", _text,
            before=f"{_FINETUNE} --method full"),
    Command("finetune chats",
            "finetune --data pairs.jsonl --model model --steps 5 --rank 1", _pairs),
    Command("finetune chats whole",
            "finetune --data pairs.jsonl --model model --steps 5 --method full", _pairs),
    Command("compare", "compare --text notes.txt --steps 3", _text,
            timed=("results.json", "notes.txt.png", "out")),
    Command("compare again",
            "compare --text notes.txt --steps 2 --rank 2 --methods full,lora", _text,
            timed=("results.json", "notes.txt.png", "out"),
            before="compare --text notes.txt --steps 2 --methods full,lora"),
    Command("pretrain", "pretrain docs-tiny --steps 5"),
    Command("sweep", "sweep --text notes.txt --ranks 1,2 --steps 2 --jobs 1", _text, steps_a_run=2),
    Command("sweep in processes", "sweep --text notes.txt --ranks 1 --steps 2 --jobs 2", _text),
    Command("spectrum", "spectrum --text notes.txt --ranks 1 --steps 2 --jobs 1", _text,
            steps_a_run=2),
    Command("spectrum of an adapter", "spectrum --adapter tuned", _text, before=_FINETUNE),
    Command("study", "study rank_sweep --seeds 1 --jobs 1", steps_a_run=2),
    Command("figures", "figures --svg drawn"),
    Command("sit-exam", "sit-exam --model model", _pairs, timed=("exam.png", "out")),
    Command("generate", 'generate --adapter tuned --prompt "A rank" --tokens 20', _text,
            before=_FINETUNE),
    Command("chat", "generate --chat --model model --tokens 9", _pairs, typed="Hi\nWhy?\n"),
    Command("params", "params --out drawn"),
    Command("profile", "profile --steps 1 --batch 1 --length 8 --out drawn",
            timed=("profile.png", "out")),
    Command("inspect", "inspect tuned --figure tuned.png", _text, before=_FINETUNE),
    Command("quiz", "quiz --questions 4 --seed 1", typed="a\n\nb\n\na\n\nc\n\n\n",
            timed=("progress.json",)),
    Command("exam", "exam --seed 7"),
    Command("cards", "cards --anki a.apkg --anki-text a.txt --json a.json --moodle m.xml "
            "--gift g.txt --qti q.zip", timed=("a.apkg", "q.zip")),
    Command("page", "page"),
    Command("lessons", "lessons --copy mine"),
    Command("check", "check mine.ipynb", _book),
    Command("grade", "grade class --csv grades.csv --feedback told", _books, timed=("out",)),
    Command("doctor", "doctor", timed=("out",)),
]  # fmt: skip


def read(file: Path, timed: bool = False) -> str:
    """What stands in a file, but for times: the same text for the same content. If it is `timed`,
    only that it can be read. Raises whatever its reader raises for a damaged file."""
    content = file.read_bytes()
    if file.suffix == ".json":
        content = said_by(json.loads(content))
    elif file.suffix == ".safetensors":
        content = _tensors(file)
    elif file.suffix == ".npz":
        with np.load(file) as arrays:
            content = b"".join(arrays[name].tobytes() for name in arrays)
    elif file.suffix == ".png":
        with Image.open(file) as picture:
            content = picture.tobytes()
    elif file.suffix in (".apkg", ".zip"):
        _read_archive(file)
    elif file.suffix in (".html", ".svg", ".xml"):
        assert content.rstrip().endswith((b"</html>", b"</svg>", b"</quiz>")), "its end is missing"
    elif file.suffix == ".ipynb":
        json.loads(content)
    else:
        assert content, "it is empty"
    if file.name == "progress.json":
        progress = Progress(file)
        assert not progress.note, progress.note
    return "read" if timed else hash_of(content)


def said_by(value: Any) -> bytes:
    """What stands in a JSON value, but for times."""
    return json.dumps(_without_times(value), sort_keys=True).encode()


def hash_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in _TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _tensors(file: Path) -> bytes:
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        about = dict(opened.metadata() or {})
        about.pop("checksum", None)
        keys = sorted(opened.keys())
        if "losses" in keys:  # a checkpoint
            keys.remove("seconds")
        tensors = [opened.get_tensor(key).tobytes() for key in keys]
    return b"".join([json.dumps([about, keys], sort_keys=True).encode(), *tensors])


def _read_archive(file: Path) -> None:
    with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as scratch:
        assert archive.testzip() is None
        for name in archive.namelist():
            if name.startswith("collection"):
                with sqlite3.connect(archive.extract(name, scratch)) as base:
                    assert base.execute("pragma integrity_check").fetchone() == ("ok",)


def saved_steps(place: Path, command: Command) -> int:
    """The steps of training that need not be made again: those in checkpoints and finished runs."""
    from safetensors import safe_open

    steps = 0
    for file in place.rglob("*.safetensors"):
        if not is_scratch(file):
            with safe_open(file, framework="np") as opened:
                if "losses" in opened.keys():  # noqa: SIM118
                    steps += len(opened.get_tensor("losses"))
    runs = [file for file in place.rglob("*-runs/*.json") if not is_scratch(file)]
    return steps + command.steps_a_run * len(runs)


def is_scratch(file: Path) -> bool:
    """Whether it stands under a hidden folder's name, and not yet under its own."""
    return any(part.startswith(".") for part in file.parts)


def pairs_of(place: Path) -> list[tuple[Path, Path]]:
    """The configs and weights that lie side by side, of models and of adapters."""
    pairs = []
    for config_name, weights_name in (ADAPTER_FILES, MODEL_FILES):
        for config in place.rglob(config_name):
            if (config.parent / weights_name).exists():
                pairs.append((config, config.parent / weights_name))
    return pairs


def config_that_loads(folder: Path) -> str | None:
    """The hash of the config with which a model or adapter is loaded from here; None if it is
    refused."""
    try:
        if (folder / ADAPTER_FILES[0]).exists():
            load_adapter(load_model("docs-tiny"), folder)
            return hash_of(said_by(read_config_file(folder, ADAPTER_FILES)))
        load_model(folder)
        return hash_of(said_by(read_config_file(folder, MODEL_FILES)))
    except (MiniloraError, OSError):
        return None


def without_paths(printed: str) -> str:
    """What a command printed, without the program that it suggests to go on with."""
    return re.sub(r"Try: .* -m minilora|Try: minilora", "Try: minilora", printed)
