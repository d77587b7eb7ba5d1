"""Commands to learn with: lessons, page."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import webbrowser
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.padding import Padding

from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import MAKING_PAGE, prepare_folder, say
from minilora.learn.notebooks.lessons import LESSONS, read_lesson
from minilora.learn.notebooks.lite import write_site
from minilora.learn.page.build import write_page
from minilora.system.errors import UsageError
from minilora.system.files import write_atomically


def run_lessons(args: argparse.Namespace) -> int:
    if LESSONS is None:
        raise UsageError("the lessons are not installed with this copy of minilora; clone it")
    notebooks = sorted(LESSONS.glob("*.ipynb"))
    if args.pyodide and not args.lite:
        raise UsageError("--pyodide is for the site that --lite writes: add --lite FOLDER")
    if args.lite:
        return _write_site(args, notebooks)
    if not (args.copy or args.open):
        console = Console(markup=False)
        for path in notebooks:
            lesson = read_lesson(path)
            console.print(path.name, style="bold")
            console.print(Padding(lesson.question, (0, 0, 0, 2)))
            if lesson.times:
                run, read, work = lesson.times
                times = f"{run} s to run, {read} minutes to read, {work} with the exercises"
                console.print(Padding(times, (0, 0, 0, 2)), style="dim", highlight=False)
        print("Work on a copy of them: minilora lessons --copy FOLDER --open")
        return 0
    folder = args.copy or Path("minilora-lessons")
    prepare_folder(folder, "--copy")
    for path in [*notebooks, LESSONS / "GLOSSARY.md"]:
        if (folder / path.name).exists():
            say(f"{folder / path.name} is there already and stays as it is")
        else:
            write_atomically(folder / path.name, partial(Path.write_bytes, data=path.read_bytes()))
    print(f"The lessons are in {folder}: {', '.join(path.name for path in notebooks)}")
    if not args.open:
        return 0
    if find_spec("jupyterlab") is None:
        raise UsageError('opening them needs Jupyter: pip install "minilora[lessons]"')
    return subprocess.run([sys.executable, "-m", "jupyterlab", str(folder)], check=False).returncode


def _write_site(args: argparse.Namespace, notebooks: list[Path]) -> int:
    assert LESSONS is not None
    prepare_folder(args.lite, "--lite")
    say("Building the site, which takes a quarter of a minute …")
    write_site(args.lite, [*notebooks, LESSONS / "GLOSSARY.md"], args.pyodide)
    print(f"The site is in {args.lite}: put it on any web server, or look at it here:")
    print(f"python -m http.server --directory {shlex.quote(str(args.lite))}")
    if not args.pyodide:
        print("Its readers' browsers load Python from Pyodide's server.")
    return 0


def run_page(args: argparse.Namespace) -> int:
    if args.out.is_dir():
        raise UsageError(f"{args.out} is a folder: give the name of a file, --out FILE")
    prepare_folder(args.out.parent)
    say(MAKING_PAGE)
    write_page(args.out)
    size = args.out.stat().st_size / 1e6
    print(f"The page is {args.out}, {size:.1f} MB: one file, which works without a network.")
    if args.open:
        webbrowser.open(args.out.resolve().as_uri())
    return 0
