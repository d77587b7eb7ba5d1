"""Claims about the exercises: each checker accepts every right answer, in whatever style, and no
wrong one, names the reason where there is one, and raises for nothing.

Solutions are read from the lessons by the builder itself; answers_NN.py hold the others:
RIGHT[name], answers in other styles; WRONG[name], pairs of an answer and the words of the reason
that it alone must get, or None if no reason may be named, as for other algorithms;
EQUIVALENT[name], mutated solutions (mutation.py) that compute the same, each with the reason why.
"""

import ast
import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutation import mutants
from test_lessons import LESSONS, build

import minilora as ml
from minilora.analysis import counting
from minilora.learn import check
from minilora.learn import exercises as framework
from minilora.learn.exercises import EXERCISES

BANKS = [
    importlib.import_module(path.stem)
    for path in sorted(Path(__file__).parent.glob("answers_*.py"))
]


def all_banks(table: str) -> dict[str, Any]:
    """One table of every answers_NN.py together."""
    together: dict[str, Any] = {}
    for bank in BANKS:
        together |= getattr(bank, table, {})
    return together


RIGHT, WRONG, EQUIVALENT = all_banks("RIGHT"), all_banks("WRONG"), all_banks("EQUIVALENT")


SOLUTIONS: dict[str, str] = {}
REPAIRS: set[str] = set()
NAMESPACES: dict[str, dict[str, Any]] = {}  # what stands before each solution: imports, solutions


def lesson_functions() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """(solution, stub) of every exercise of every lesson, run with the lesson's imports."""
    found = {}
    for path in sorted((LESSONS / "src").glob("*.py")):
        cells, exercises = build.parse(path.read_text(encoding="utf-8"))
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        names = (ast.Import, ast.ImportFrom)
        imports = ast.Module([n for n in ast.parse(code).body if isinstance(n, names)], [])
        solved: dict[str, Any] = {}
        exec(compile(imports, path.name, "exec"), solved)
        empty = dict(solved)
        for one in exercises:
            if one.repair:
                REPAIRS.add(one.name)
            SOLUTIONS[one.name], NAMESPACES[one.name] = one.solution, dict(solved)
            exec(one.solution, solved)
            exec(one.stub, empty)
            found[one.name] = solved[one.name], empty[one.name]
    return found


FUNCTIONS = lesson_functions()
NO_REASON = re.compile(r"expected (a number|an array of shape \(.*\)|[^:]*)\.$")


@pytest.fixture(autouse=True)
def _no_attempts_yet(monkeypatch):
    monkeypatch.setattr(framework, "_wrong_answers", type(framework._wrong_answers)())


def judge(name: str, answer: Any) -> check.Verdict:
    return getattr(check, name)(answer)


@lru_cache
def of_the_solution(name: str) -> check.Verdict:
    return judge(name, FUNCTIONS[name][0])


def test_every_exercise_is_in_a_lesson_and_has_a_bank_of_answers():
    assert EXERCISES.keys() == FUNCTIONS.keys() == WRONG.keys() == RIGHT.keys()
    few = {
        name
        for name in EXERCISES
        if len(RIGHT[name]) < 5
        or len(WRONG[name]) < 10
        or not any(w is None for _, w in WRONG[name])
    }
    shared = {"script_2", "script_3", "script_4", "script_5", "script_7", "script_8", "script_9"}
    assert few <= shared, "the clinic's scripts have one battery: 1, 6 and 10 try all of it"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_lessons_solution_is_correct(name):
    verdict = of_the_solution(name)
    assert verdict.status == "correct" and repr(verdict).startswith("Correct.")


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_in_other_styles_are_correct(name):
    verdicts = {i: judge(name, answer) for i, answer in enumerate(RIGHT[name])}
    assert {i: verdict.message for i, verdict in verdicts.items() if not verdict} == {}


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_not_attempted_or_if_it_is_to_be_repaired_wrong(name):
    expected = "wrong" if name in REPAIRS else "not attempted"
    assert judge(name, FUNCTIONS[name][1]).status == expected


@pytest.mark.thorough
@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_answer_gets_its_own_reason_or_none(name):
    all_words = [words for _, words in WRONG[name] if words is not None]
    problems = {}
    for i, (answer, words) in enumerate(WRONG[name]):
        verdict = judge(name, answer)
        problem = problem_of(verdict, words, all_words)
        if problem:
            problems[i] = problem, verdict.message
    assert problems == {}


def problem_of(verdict: check.Verdict, words: str | None, all_words: list[str]) -> str:
    """What is not as it should be with the verdict on a wrong answer, or ""."""
    found = verdict.message.partition("\n")[0]  # the second line is a hint
    is_question = "Is this the reason" in found
    if verdict.status != "wrong" or not found.startswith("Not yet: "):
        return "it is not found wrong"
    if "  " in found:
        return "what yours.inputs says is known only after the call"
    if verdict.message.encode("cp1252", "replace").decode("cp1252") != verdict.message:
        return "a console of Windows cannot print it"
    if words is None and not (is_question or NO_REASON.search(found)):
        return "a reason is named"
    if words is not None and (is_question or {w for w in all_words if w in found} != {words}):
        return f"its reason is not {words!r} alone"
    return ""


@pytest.mark.thorough
@pytest.mark.parametrize("name", EXERCISES)
def test_a_mutated_solution_is_correct_only_if_it_computes_the_same(name, monkeypatch):
    monkeypatch.setattr(framework, "TIME_LIMIT", 2)
    namespace = NAMESPACES[name]
    survivors = set()
    for change, source in mutants(SOLUTIONS[name]):
        changed = dict(namespace)
        try:
            exec(compile(source, name, "exec"), changed)
        except Exception:
            continue
        with np.errstate(all="ignore"):
            if judge(name, changed[name]):
                survivors.add(change)
    assert survivors == set(EQUIVALENT.get(name, {}))


def raises(*arguments):
    raise RuntimeError("no idea")


NO_ANSWERS = [
    "r * (d_in + d_out)",
    42,
    raises,
    lambda: 1,
    lambda *a: "text",
    lambda *a: [1, [2, 3]],
    lambda *a: {"r": 1},
    lambda *a: np.zeros((0, 3)),
    lambda *a: np.nan,
    lambda *a: object(),
    lambda *a: np.inf,
    lambda *a: 10**400,
    lambda *a: 1j,
    lambda *a: (number for number in (1, 2)),
    lambda *a: exit(),
]


@pytest.mark.parametrize("name", EXERCISES)
def test_a_checker_raises_for_no_answer(name):
    assert [judge(name, nothing).status for nothing in (None, ...)] == ["not attempted"] * 2
    assert [judge(name, answer).status for answer in NO_ANSWERS] == ["wrong"] * len(NO_ANSWERS)


@pytest.mark.parametrize("name", EXERCISES)
def test_hints_and_praise_can_be_printed_on_a_console_of_windows(name):
    for text in [*EXERCISES[name], of_the_solution(name).message]:
        assert text.encode("cp1252").decode("cp1252") == text


def test_checkers_agree_with_the_package():
    config = counting.ARCHITECTURES["docs-tiny"]
    shapes, targets = counting.matrix_shapes(config), ["q_proj", "down_proj"]
    solution = {name: functions[0] for name, functions in FUNCTIONS.items()}
    expected = counting.lora_parameters(config, 4, targets)
    assert solution["count_model"](shapes, config.n_layer, 4, targets) == expected
    assert solution["largest_rank"](shapes, config.n_layer, targets, expected) == 4
    assert solution["largest_rank"](shapes, config.n_layer, targets, expected - 1) == 3
    assert solution["break_even_rank"](128, 512) == counting.break_even_rank(128, 512)
    ladder = counting.training_bytes(7_000_000, 1_000_000, 4)
    assert solution["training_gigabytes"](7_000_000, 1_000_000, 4) == ladder["total"] / 1e9


def test_the_layer_of_lesson_04_is_the_packages_bit_for_bit_after_training():
    parts, names = {name: FUNCTIONS[name][0] for name in ("MyLora", "adapt", "lora_op")}, ["q_proj"]

    class OneOp(parts["MyLora"]):
        def __call__(self, x, rng=None):
            rows = x.reshape(-1, x.shape[-1])
            y = parts["lora_op"](rows, self.base.weight, self.base.bias, self.A, self.B, self.s)
            return y.reshape(*x.shape[:-1], y.shape[-1])

    mine, theirs = ml.load_model("docs-tiny"), ml.load_model("docs-tiny")
    parts["adapt"](mine, names, OneOp, 4, 8, np.random.default_rng(0))
    config = ml.LoraConfig(r=4, lora_alpha=8, target_modules=names)
    ml.add_adapter(theirs, config, rng=np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, 96, (4, 33))
    for model in (mine, theirs):
        ml.train(
            model,
            lambda rng: (ids[:, :-1], ids[:, 1:]),
            ml.TrainConfig(steps=8, lr=1e-2),
            quiet=True,
        )
    assert np.array_equal(mine(ids).data, theirs(ids).data)
    assert not np.array_equal(mine(ids).data, ml.load_model("docs-tiny")(ids).data)
