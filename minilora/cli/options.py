"""The options of every command.

Each command's are added by a function, which imports what it takes choices from: `minilora --help`
and the other commands need not load that.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minilora.methods.registry import LABELS
from minilora.system.version import __version__
from minilora.text.string_tasks import STRING_TASKS

RESULTS = Path("minilora-results")
QUICK_STEPS = 40


def parser(command: str) -> argparse.ArgumentParser:
    """Of `minilora`, with a subparser for each command, of which that of `command` has options."""
    whole = argparse.ArgumentParser(
        prog="minilora",
        description="Full fine-tuning and LoRA side by side, on a transformer small enough to "
        "read. Without a command: compare.",
    )
    whole.add_argument("--version", action="version", version=f"minilora {__version__}")
    subparsers = whole.add_subparsers(title="commands", metavar="COMMAND")
    for name, (about, add_options) in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=about, description=about)
        sub.set_defaults(command=name)
        if name == command and add_options:
            add_options(sub)
    return whole


def _compare(sub: argparse.ArgumentParser) -> None:
    from minilora.experiments.comparison import DEFAULT_METHODS
    from minilora.experiments.tasks import TASKS

    _add_task_options(sub, [*TASKS, "all"])
    about = f"of {', '.join(LABELS)}; default: {','.join(DEFAULT_METHODS)}"
    sub.add_argument(
        "--methods", type=_methods, metavar="NAMES", default=DEFAULT_METHODS, help=about
    )
    _add_lora_options(sub)
    sub.add_argument("--full-lr", type=float, metavar="RATE", help="learning rate of full tuning")
    sub.add_argument("--seeds", type=_count, default=1, metavar="N", help="repeat with N seeds")
    sub.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps, to see it work")
    sub.add_argument("--json", action="store_true", help="print results.json instead of a table")
    sub.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help=f"./{RESULTS}")


def _finetune(sub: argparse.ArgumentParser) -> None:
    about = (
        'a text in UTF-8; or FILE.jsonl, on each line {"question": …, "answer": …}, or with the '
        "names prompt and completion, instruction and output, or messages"
    )
    sub.add_argument(
        "--data", "--text", dest="text", metavar="FILE", type=Path, required=True, help=about
    )
    about = "a name, a folder or a .gguf file; default: docs-tiny, of questions and answers smollm2"
    sub.add_argument("--model", metavar="NAME", help=about)
    about = "keep the model of a .gguf file in its 4 bits (QLoRA): less memory, more time"
    sub.add_argument("--quantized", action="store_true", help=about)
    sub.add_argument("--method", choices=["lora", "full"], default="lora", help="default: lora")
    _add_lora_options(sub)
    sub.add_argument("--out", type=Path, metavar="FOLDER", help=f"./{RESULTS}/NAME-METHOD")


def _generate(sub: argparse.ArgumentParser) -> None:
    about = "a name or a folder; default: the adapter's own base, or docs-tiny (to chat: smollm2)"
    sub.add_argument("--model", metavar="NAME", help=about)
    about = "a conversation, with a model that was trained to chat; with --prompt one answer"
    sub.add_argument("--chat", action="store_true", help=about)
    sub.add_argument("--adapter", type=Path, metavar="FOLDER", help="a saved adapter to attach")
    symbols = ", ".join(f"{task.symbol} {name}" for name, task in STRING_TASKS.items())
    about = f'what it continues; of words-tiny a symbol, a word and ">": "=brave>" ({symbols})'
    sub.add_argument("--prompt", metavar="TEXT", help=about)
    sub.add_argument("--tokens", type=_count, default=300, metavar="N", help="default: 300")
    about = "0 is greedy; default: 0.7 (to chat: 0.2)"
    sub.add_argument("--temperature", type=float, help=about)
    sub.add_argument("--top-k", type=_count, metavar="K", help="draw from the K likeliest only")
    about = "draw from the likeliest that together have probability P only"
    sub.add_argument("--top-p", type=float, metavar="P", help=about)
    sub.add_argument("--seed", type=_seed, default=0, metavar="S", help="default: 0")


def _params(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shapes", nargs="*", type=_shape, metavar="INxOUT", help="such as 4096x4096")
    sub.add_argument("--times", type=_count, default=1, metavar="N", help="each shape N times")
    sub.add_argument("--model", default="docs-tiny", help="a bundled name or a folder")
    _add_rank_options(sub)
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="write params.png there")


def _inspect(sub: argparse.ArgumentParser) -> None:
    about = "with adapter_config.json and adapter_model.safetensors, as PEFT writes them"
    sub.add_argument("folder", type=Path, metavar="FOLDER", help=about)
    sub.add_argument("--all", action="store_true", help="a row for every module, not every kind")
    sub.add_argument("--json", action="store_true", help="print the numbers instead of a table")
    about = "draw ‖ΔW‖ and the singular values there"
    sub.add_argument("--figure", type=_file(".png", ".svg"), metavar="FILE.png", help=about)


def _profile(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="docs-tiny", help="a bundled name or a folder")
    sub.add_argument("--batch", type=_count, default=12, metavar="N", help="texts; default: 12")
    about = "symbols of each, drawn at random: time does not depend on them; default: up to 64"
    sub.add_argument("--length", type=_count, metavar="T", help=about)
    _add_rank_options(sub)
    sub.add_argument("--steps", type=_count, default=30, metavar="N", help="30, after 5 of warm-up")
    sub.add_argument("--json", action="store_true", help="print the numbers instead of a table")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="write profile.png there")


def _sit_exam(sub: argparse.ArgumentParser) -> None:
    from minilora.experiments.exam import COURSES, MODEL

    about = f"of {', '.join(COURSES)}, or all; default: lora, beside the base"
    sub.add_argument("--courses", type=_courses, metavar="NAMES", default=["lora"], help=about)
    about = "smollm2 (default), a folder or a .gguf file of a model that chats"
    sub.add_argument("--model", default=MODEL, metavar="NAME", help=about)
    sub.add_argument("--seeds", type=_count, default=1, metavar="N", help="repeat with N seeds")
    about = "also half and twice the learning rates of lora and full, with one seed"
    sub.add_argument("--other-rates", action="store_true", help=about)
    _add_threads_option(sub)
    folder = RESULTS / "exam"
    sub.add_argument("--out", type=Path, default=folder, metavar="FOLDER", help=f"./{folder}")


def _study(sub: argparse.ArgumentParser) -> None:
    from minilora.studies import STUDIES

    sub.add_argument(
        "name", choices=[*STUDIES, "all"], metavar="NAME", help=f"all, {', '.join(STUDIES)}"
    )
    sub.add_argument("--seeds", type=_count, default=3, metavar="N", help="default: 3")
    _add_sweep_options(sub, "studies")


def _figures(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out", type=Path, default=Path("figures"), metavar="FOLDER", help="default: ./figures"
    )
    about = "write them there as SVG instead, sharp at any size, for slides"
    sub.add_argument("--svg", type=Path, metavar="FOLDER", help=about)


def _sweep(sub: argparse.ArgumentParser) -> None:
    _add_runs_options(sub, "1,2,4,8,16")
    _add_sweep_options(sub, "sweep")


def _spectrum(sub: argparse.ArgumentParser) -> None:
    given = sub.add_mutually_exclusive_group()
    given.add_argument("--adapter", type=Path, metavar="FOLDER", help="of this adapter of --model")
    given.add_argument("--tuned", type=Path, metavar="FOLDER", help="of this model, minus --model")
    _add_runs_options(sub, "4")
    _add_sweep_options(sub, "spectrum")


def _lessons(sub: argparse.ArgumentParser) -> None:
    about = "write a site there whose notebooks run in the browser (JupyterLite)"
    sub.add_argument("--lite", type=Path, metavar="FOLDER", help=about)
    about = "a distribution of Pyodide for that site, which then needs no network"
    sub.add_argument("--pyodide", type=Path, metavar="FILE", help=about)
    sub.add_argument("--copy", type=Path, metavar="FOLDER", help="copy them there, to work in")
    sub.add_argument("--open", action="store_true", help="open the copies in Jupyter")


def _check(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", default=[Path()],
                     help="or a folder of them; default: this one")  # fmt: skip


def _grade(sub: argparse.ArgumentParser) -> None:
    about = "a folder with a notebook, or with a folder of them, for each student"
    sub.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSIONS", help=about)
    sub.add_argument("--csv", type=Path, metavar="FILE", help="write points there; go on from it")
    about = "write an HTML file for each student there"
    sub.add_argument("--feedback", type=Path, metavar="FOLDER", help=about)


def _page(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, default=RESULTS / "page.html", metavar="FILE",
                     help=f"./{RESULTS / 'page.html'}")  # fmt: skip
    sub.add_argument("--open", action="store_true", help="open it in the browser")


def _quiz(sub: argparse.ArgumentParser) -> None:
    way = sub.add_mutually_exclusive_group()
    about = "a mock exam of N questions, timed, explained at the end; default: 20"
    way.add_argument("--exam", type=_count, nargs="?", const=20, metavar="N", help=about)
    about = "spaced review: the cards that are due, then some new ones"
    way.add_argument("--review", action="store_true", help=about)
    way.add_argument("--questions", type=_count, metavar="N", help="default: 20")
    _add_card_options(sub, "another than a random one: the same seed asks the same questions")
    about = "of a mock exam; default: one for each question"
    sub.add_argument("--minutes", type=_minutes, metavar="M", help=about)
    about = "where progress is kept, in the page's format; default: in your user data folder"
    sub.add_argument("--progress", type=Path, metavar="FILE", help=about)


def _exam(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--questions", type=_count, metavar="N", help="default: 20")
    about = "the same questions in other orders; default: A,B"
    sub.add_argument("--versions", type=_versions, default="A,B", metavar="V,V", help=about)
    _add_card_options(sub, "another than a random one: the same seed makes the same exam and key")
    about = "default: ./minilora-exam-S.html"
    sub.add_argument("--out", type=_file(".html", ".htm"), metavar="FILE.html", help=about)


def _cards(sub: argparse.ArgumentParser) -> None:
    _add_topic_option(sub)
    about = "a text file for Anki, with its note type Basic"
    sub.add_argument("--anki", type=_file(".apkg"), metavar="FILE.apkg", help="a package for Anki")
    sub.add_argument("--anki-text", type=_file(".txt"), metavar="FILE.txt", help=about)
    sub.add_argument("--moodle", type=_file(".xml"), metavar="FILE.xml", help="Moodle XML")
    about = "the text format of Moodle and others, to edit by hand"
    sub.add_argument("--gift", type=_file(".txt", ".gift"), metavar="FILE.txt", help=about)
    about = "a quiz for Canvas and others that read QTI 1.2"
    sub.add_argument("--qti", type=_file(".zip"), metavar="FILE.zip", help=about)
    about = "for a program of your own"
    sub.add_argument("--json", type=_file(".json"), metavar="FILE.json", help=about)
    about = "the page, with all cards to flip and a mock exam"
    sub.add_argument("--html", type=_file(".html", ".htm"), metavar="FILE.html", help=about)


def _pretrain(sub: argparse.ArgumentParser) -> None:
    from minilora.experiments.tasks import BASE_MODELS

    sub.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BASE_MODELS)}")
    sub.add_argument("--steps", type=_count, metavar="N", help="fewer, to try it out")
    sub.add_argument("--seed", type=_seed, metavar="S", help="another than that of the bundled one")
    _add_threads_option(sub)
    made = RESULTS / "pretrained"
    sub.add_argument("--out", type=Path, default=made, metavar="FOLDER", help=f"./{made}")


def _add_lora_options(sub: argparse.ArgumentParser) -> None:
    _add_rank_options(sub)
    sub.add_argument("--lr", type=float, metavar="RATE", help="learning rate (in compare: LoRA's)")
    about = "default: 300 (string tasks: 600; a real model: 48)"
    sub.add_argument("--steps", type=_count, metavar="N", help=about)
    sub.add_argument("--seed", type=_seed, default=0, metavar="S", help="default: 0")
    _add_threads_option(sub)


def _add_task_options(sub: argparse.ArgumentParser, tasks: Sequence[str]) -> None:
    given = sub.add_mutually_exclusive_group()
    given.add_argument("--task", choices=tasks, help="default: code")
    given.add_argument("--text", metavar="FILE", type=Path, help="a text of yours as the new task")


def _add_runs_options(sub: argparse.ArgumentParser, ranks: str) -> None:
    from minilora.experiments.tasks import TASKS

    _add_task_options(sub, TASKS)
    sub.add_argument("--model", metavar="NAME", help="a bundled name or a folder, as the base")
    about = f"of LoRA, with s in proportion to 1/√r; beside full fine-tuning; default: {ranks}"
    sub.add_argument("--ranks", type=_ranks, default=_ranks(ranks), metavar="R,R", help=about)
    sub.add_argument("--steps", type=_count, metavar="N", help="default: 300 (string tasks: 600)")
    sub.add_argument("--seeds", type=_count, default=1, metavar="N", help="default: 1")


def _add_sweep_options(sub: argparse.ArgumentParser, folder: str) -> None:
    sub.add_argument("--jobs", type=_count, metavar="N", help="runs at a time; default: all cores")
    about = "where they run; default: loky, processes of this machine"
    sub.add_argument("--backend", choices=["loky", "dask"], default="loky", help=about)
    sub.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster, with --backend dask"
    )
    sub.add_argument(
        "--out", type=Path, default=RESULTS / folder, metavar="FOLDER", help=f"./{RESULTS / folder}"
    )


def _add_card_options(sub: argparse.ArgumentParser, about_seed: str) -> None:
    _add_topic_option(sub)
    sub.add_argument("--seed", type=_seed, metavar="S", help=about_seed)


def _add_topic_option(sub: argparse.ArgumentParser) -> None:
    from minilora.learn.exam.cards import TOPICS

    about = f"only cards on one of {', '.join(TOPICS)}; or on a tag, or of a lesson, such as 05"
    sub.add_argument("--topic", metavar="T", help=about)


def _add_threads_option(sub: argparse.ArgumentParser) -> None:
    about = "threads that share a batch; the results do not depend on it"
    sub.add_argument("--threads", type=_count, metavar="N", help=about)


def _add_rank_options(sub: argparse.ArgumentParser) -> None:
    about = "rank; default: 4 (reverse: 2; a real model: 8)"
    sub.add_argument("--rank", type=int, metavar="R", help=about)
    sub.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="s = A/R (string tasks: A/√R); default: s goes with 1/√R",
    )
    sub.add_argument(
        "--targets", metavar="NAMES", help='such as q_proj,v_proj; default: "all-linear"'
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _ranks(text: str) -> list[int]:
    return list(dict.fromkeys(_count(part.strip()) for part in text.split(",")))


def _file(*endings: str) -> Callable[[str], Path]:
    """Programs tell by its ending what a file is."""

    def file(text: str) -> Path:
        if not text.lower().endswith(endings):
            raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(endings)}")
        return Path(text)

    return file


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of minutes above 0, at most 1440 (a day)"
        )
    return minutes


def _versions(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(name.isalnum() and len(name) < 9 for name in names) or len({*names}) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} are not different short names such as A,B")
    return names


def _methods(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in LABELS:
            raise argparse.ArgumentTypeError(f"no method {name!r}; use: {', '.join(LABELS)}")
    return names


def _courses(text: str) -> list[str]:
    from minilora.experiments.exam import COURSES

    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == ["all"]:
        return list(COURSES)
    for name in names:
        if name not in COURSES:
            raise argparse.ArgumentTypeError(f"no course {name!r}; use: {', '.join(COURSES)}")
    return names


def _shape(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 4096x4096")
    return int(sides[0]), int(sides[1])


def lora_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the user asked of LoRA, under the names that LoraConfig has for it."""
    targets = args.targets
    if targets not in (None, "all-linear"):
        targets = [name.strip() for name in targets.split(",")]
    given = {"r": args.rank, "lora_alpha": args.alpha, "target_modules": targets}
    return {name: value for name, value in given.items() if value is not None}


_AddOptions = Callable[[argparse.ArgumentParser], None]
_COMMANDS: dict[str, tuple[str, _AddOptions | None]] = {
    "compare": ("train one base model both ways and measure every cost", _compare),
    "finetune": (
        "tune a model to a text, or to questions and answers, of yours, and save the result",
        _finetune,
    ),
    "generate": ("let a model continue a prompt, or answer in a chat", _generate),
    "params": ("count what LoRA trains, for a model or for given shapes", _params),
    "inspect": ("what an adapter's files say, without its base model", _inspect),
    "profile": ("time each op of a training step, both methods", _profile),
    "sit-exam": ("teach a real model what LoRA is, and let it sit an exam on that", _sit_exam),
    "study": (
        "repeat one of the studies behind figures/: with 3 seeds up to 168 runs of about a minute "
        "(rank_sweep: 63)",
        _study,
    ),
    "figures": ("draw figures/ again from the results that are shipped", _figures),
    "sweep": ("which rank does a text of yours need?", _sweep),
    "spectrum": ("the singular values of what training changed, ΔW", _spectrum),
    "lessons": ("the notebooks: list, copy, open in Jupyter, put on a web site", _lessons),
    "check": ("which exercises of a notebook are done, and which is next", _check),
    "grade": ("mark the notebooks of a class, with a reason for each point lost", _grade),
    "page": ("write one HTML file with a live model, a playground and the exam cards", _page),
    "quiz": ("exam questions in the terminal, each answer explained and measured", _quiz),
    "exam": ("write an exam for paper: one HTML file with all versions and the key", _exam),
    "cards": ("list the exam cards, or write them for Anki, Moodle, Canvas …", _cards),
    "pretrain": ("make the bundled base models again (some minutes)", _pretrain),
    "doctor": ("what this machine has, and what is missing", None),
}
