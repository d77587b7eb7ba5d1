"""Claims about the house: imports point down, rooms stay small, the path a student reads is short.

The order of the rooms is README's. Every import counts, also one inside a function. The rules are
functions of source text, so that their own tests can hand them a house that breaks them.
"""

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import minilora

PACKAGE = Path(minilora.__file__).parent
ORDER = (  # bottom up; rooms of one line do not import each other
    ("system",),
    ("table",),  # the files that lie in minilora/ itself
    ("tokens",),
    ("text",),
    ("generation", "quantization"),
    ("methods", "combining"),
    ("hub",),
    ("training",),
    ("analysis",),
    ("experiments",),
    ("plots",),
    ("studies",),
    ("learn",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
READING_PATH = ["tensor", "ops", "nn", "transformer", "lora"]  # each imports only those before it


def room_of(module: str) -> str:
    """The room of "minilora.text.corpora" or "minilora.lora"; "root" for the package itself."""
    _, *rest = module.split(".")
    if rest and rest[0] in FLOOR:
        return rest[0]
    if rest == ["__main__"]:
        return "cli"
    return "table" if rest and (PACKAGE / f"{rest[0]}.py").exists() else "root"


def imported(source: str) -> set[str]:
    """Modules of the package that this source imports, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                part for part in ("minilora" if node.level else "", node.module) if part
            )
            is_folder = base == "minilora" or base.removeprefix("minilora.") in FLOOR
            found |= {f"{base}.{a.name}" for a in node.names} if is_folder else {base}
    return {name for name in found if name.partition(".")[0] == "minilora"}


def violations(sources: dict[str, str]) -> list[str]:
    """What is wrong with the imports of these modules, one sentence each."""
    wrong = []
    graph = {module: imported(text) for module, text in sources.items()}
    for module, targets in graph.items():
        room = room_of(module)
        for target in sorted(targets):
            there = room_of(target)
            if there == "root":
                if room in ("cli", "learn", "studies"):
                    continue
                wrong.append(f"{module} imports the package root, which stands on top of it")
            elif FLOOR[there] > FLOOR[room]:
                wrong.append(f"{module} imports {target}, which is above it")
            elif FLOOR[there] == FLOOR[room] and there != room:
                wrong.append(f"{module} imports {target}: {room} and {there} stand side by side")
    path = [f"minilora.{name}" for name in READING_PATH]
    for i, module in enumerate(path):
        for target in sorted(graph.get(module, set()) & set(path[i + 1 :])):
            wrong.append(f"{module} imports {target}, which is read after it")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        wrong.append("imports go in a circle: " + " -> ".join(error.args[1]))
    return wrong


def modules() -> dict[str, str]:
    return {
        ".".join(("minilora", *path.relative_to(PACKAGE).with_suffix("").parts)): path.read_text(
            "utf-8"
        )
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE or path.name != "__init__.py"
    }


def test_every_import_of_the_package_points_down():
    sources = modules()
    assert {f"minilora.{name}" for name in READING_PATH} <= sources.keys()
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ({"minilora.nn": "from minilora.lora import LoraLinear"}, "lora, which is read after it"),
        ({"minilora.nn": "from minilora import lora as L"}, "lora, which is read after it"),
        ({"minilora.nn": "import minilora.lora"}, "lora, which is read after it"),
        ({"minilora.tensor": "from minilora.ops import add"}, "ops, which is read after it"),
        ({"minilora.lora": "def f():\n    from minilora.hub.models import x"}, "is above it"),
        ({"minilora.system.files": "from minilora.tensor import Tensor"}, "is above it"),
        ({"minilora.plots.axes": "from minilora.studies import rank_sweep"}, "is above it"),
        ({"minilora.text.windows": "from minilora.hub.models import x"}, "is above it"),
        (
            {"minilora.methods.ia3": "from minilora.combining.combine import x"},
            "stand side by side",
        ),
        ({"minilora.training.loop": "import minilora as ml"}, "imports the package root"),
        ({"minilora.training.loop": "from minilora import Tensor"}, "imports the package root"),
        (
            {
                "minilora.text.windows": "from minilora.text.corpora import x",
                "minilora.text.corpora": "from minilora.text import windows",
            },
            "in a circle",
        ),
    ],
)
def test_a_house_that_breaks_a_rule_is_reported(sources, sentence):
    found = violations(sources)
    assert len(found) == 1 and sentence in found[0]


def test_imports_within_a_room_and_from_below_are_allowed():
    allowed = {
        "minilora.text.windows": "from minilora.transformer import KVCache\nimport numpy as np",
        "minilora.cli.looking": "import minilora as ml\nfrom minilora.studies import study",
        "minilora.lora": "from minilora.tensor import Tensor\nfrom minilora.system import files",
        "minilora.hub.adapters": "from minilora.hub.models import load_model",
    }
    assert violations(allowed) == []


def test_a_room_has_at_most_a_dozen_files():
    """But those that have one for each study, lesson or demo."""
    rooms = {room: list(room.glob("*.py")) for room in PACKAGE.rglob("*") if room.is_dir()}
    own = {PACKAGE / "studies", PACKAGE / "learn", PACKAGE / "learn" / "demos"}
    crowded = {room.name: len(files) for room, files in rooms.items() if len(files) > 1 + 12}
    assert crowded.keys() == {room.name for room in own}


def test_importing_minilora_loads_no_upper_floor_and_no_heavy_library():
    code = "import json, sys, minilora; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = set(json.loads(answer.stdout))
    assert "minilora" in loaded
    upper = {f"minilora.{room}" for room in ("experiments", "plots", "studies", "learn", "cli")}
    assert not loaded & (upper | {"matplotlib", "rich", "joblib", "torch", "tokenizers", "jinja2"})


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    code = (
        "import minilora as ml; print([n for n in ml.__all__ if type(getattr(ml, n)) is type(ml)])"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert answer.stdout.strip() == "[]"


def test_the_path_a_student_reads_has_at_most_1000_lines_and_is_not_packed():
    lines = {
        name: (PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines()
        for name in READING_PATH
    }
    count = {name: len(text) for name, text in lines.items()}
    assert sum(count.values()) <= 1000, f"{sum(count.values())} lines: {count}"
    assert [line for text in lines.values() for line in text if len(line) > 95] == []
