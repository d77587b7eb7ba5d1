"""Claims about the house: imports point down, and the path a student reads stays short.

The floors are README's. Every import counts, also one inside a function. The rules are functions
of source text, so that their own tests can hand them a house that breaks them.
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

FLOORS = {
    0: "memory tensor ops functional gradcheck",
    1: "nn",
    2: "transformer optim data string_tasks lora_config lora_init files",
    3: "lora methods",
    4: "decoder generate parallel train evaluate hub hf_layouts peft_layouts recipes "
    "analysis counting",
    5: "compare plots report doctor profiler sweep experiment study panels delta_plots study_plots "
    "exercise "
    "exercises_00 exercises_05 exercises_06 exercises_07 check",
    6: "commands study_commands cli __main__",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
ORDER_OF_FLOOR_0 = FLOORS[0].split()
ONLY = {
    "lora_config": {"nn", "lora_init"},
    "files": set(),
    "memory": set(),
}  # the whole of what these may import of the package
ROOT_FLOOR = 4  # the highest floor that minilora/__init__.py may load
READING_PATH = ["tensor", "ops", "nn", "transformer", "lora"]


def imported(source: str) -> set[str]:
    """Modules of the package that this source imports; "" is the package itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "minilora" if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            names = [f"{base}.{a.name}" if base == "minilora" else base for a in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "minilora":
                module = rest.split(".")[0]
                found.add(module if module in FLOOR else "" if name != "minilora" else module)
    return found


def violations(sources: dict[str, str]) -> list[str]:
    """What is wrong with these modules' imports, one sentence each."""
    wrong = [f"{name}.py has no floor in tests/test_imports.py" for name in sources - FLOOR.keys()]
    graph = {name: imported(text) for name, text in sources.items() if name in FLOOR}
    for name, targets in graph.items():
        for target in sorted(targets):
            above = FLOOR.get(target, ROOT_FLOOR + 0.5)  # the root stands on top of what it loads
            if above > FLOOR[name]:
                wrong.append(f"{name} imports {target or 'the package root'}, which is above it")
            elif above == FLOOR[name] == 0:
                before = ORDER_OF_FLOOR_0[: ORDER_OF_FLOOR_0.index(name)]
                if target not in before:
                    wrong.append(f"{name} imports {target}, which comes after it on floor 0")
        for target in sorted(targets - ONLY.get(name, targets)):
            wrong.append(f"{name} may not import {target or 'the package root'}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        wrong.append("imports go in a circle: " + " -> ".join(error.args[1]))
    return wrong


def test_every_import_of_the_package_points_down():
    sources = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
    }
    assert {"tensor", "ops", "nn", "transformer", "lora"} <= sources.keys()
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ({"nn": "from minilora.lora import LoraLinear"}, "nn imports lora, which is above it"),
        ({"nn": "from minilora import lora as L"}, "nn imports lora, which is above it"),
        ({"nn": "import minilora.lora"}, "nn imports lora, which is above it"),
        ({"nn": "from . import lora"}, "nn imports lora, which is above it"),
        ({"nn": "from .lora import LoraLinear"}, "nn imports lora, which is above it"),
        ({"nn": "def f():\n    from minilora.lora import x"}, "nn imports lora, which is above it"),
        ({"train": "import minilora as ml"}, "train imports the package root, which is above it"),
        ({"train": "from minilora import Tensor"}, "train imports the package root"),
        ({"tensor": "from minilora.ops import add"}, "tensor imports ops, which comes after it"),
        ({"ops": "from minilora import functional"}, "ops imports functional, which comes after"),
        (
            {"lora_config": "from minilora.tensor import Tensor"},
            "lora_config may not import tensor",
        ),
        ({"files": "from minilora.tensor import Tensor"}, "files may not import tensor"),
        ({"helpers": ""}, "helpers.py has no floor"),
        ({"data": "from minilora import optim", "optim": "import minilora.data"}, "in a circle"),
    ],
)
def test_a_house_that_breaks_a_rule_is_reported(sources, sentence):
    found = violations(sources)
    assert len(found) == 1 and sentence in found[0]


def test_imports_within_a_floor_and_of_the_root_from_above_are_allowed():
    allowed = {
        "generate": "from minilora.transformer import Transformer\nimport numpy as np",
        "cli": "import minilora as ml\nfrom minilora import study",
        "functional": "from minilora.tensor import Tensor",
        "lora_config": "from minilora.nn import Linear",
    }
    assert violations(allowed) == []


def test_importing_minilora_loads_no_upper_floor_and_no_heavy_library():
    code = "import json, sys, minilora; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = set(json.loads(answer.stdout))
    assert "minilora" in loaded
    upper = {f"minilora.{name}" for name, floor in FLOOR.items() if floor > ROOT_FLOOR}
    assert not loaded & (upper | {"matplotlib", "rich", "joblib", "torch"})


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    code = (
        "import minilora as ml; print([n for n in ml.__all__ if type(getattr(ml, n)) is type(ml)])"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert answer.stdout.strip() == "[]"


def test_the_path_a_student_reads_has_at_most_1000_lines():
    lines = {
        name: len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines())
        for name in READING_PATH
    }
    assert sum(lines.values()) <= 1000, f"{sum(lines.values())} lines: {lines}"
