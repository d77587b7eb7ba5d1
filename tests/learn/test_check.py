"""Claims about the exercises: each checker accepts the solution, names what is wrong with each
wrong one, and raises for nothing.

Solutions are read from the lessons by the builder itself; mutants_NN.py hold the wrong ones. A new
exercise needs at least three, each with words of the diagnosis that it alone must get.
"""

import ast
from collections.abc import Callable
from typing import Any

import mutants_00
import mutants_05
import mutants_06
import mutants_07
import numpy as np
import pytest
from test_lessons import LESSONS, build

import minilora as ml
from minilora.analysis import counting
from minilora.learn import check
from minilora.learn import exercises as framework
from minilora.learn.exercises import EXERCISES, Yours, compare, exercise, require
from minilora.system.errors import UsageError

MUTANTS = mutants_00.MUTANTS | mutants_05.MUTANTS | mutants_07.MUTANTS | mutants_06.MUTANTS


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
            exec(one.solution, solved)
            exec(one.stub, empty)
            found[one.name] = solved[one.name], empty[one.name]
    return found


FUNCTIONS = lesson_functions()
MUTANT_CASES = [
    pytest.param(name, mutant, words, id=f"{name}-{words}")
    for name, mutants in MUTANTS.items()
    for mutant, words in mutants
]


@pytest.fixture(autouse=True)
def _no_attempts_yet(monkeypatch):
    monkeypatch.setattr(framework, "_wrong_answers", type(framework._wrong_answers)())


def judge(name: str, answer: Any) -> check.Verdict:
    return getattr(check, name)(answer)


def diagnosis(name: str, answer: Any) -> str:
    verdict = judge(name, answer)
    assert verdict.status == "wrong"
    return repr(verdict).splitlines()[0]  # the second line is a hint


def test_every_exercise_is_in_a_lesson_and_has_three_wrong_solutions():
    assert EXERCISES.keys() == FUNCTIONS.keys() == MUTANTS.keys()
    assert [name for name, mutants in MUTANTS.items() if len(mutants) < 3] == []


@pytest.mark.parametrize("name", EXERCISES)
def test_the_lessons_solution_is_correct(name):
    verdict = judge(name, FUNCTIONS[name][0])
    assert verdict.status == "correct" and repr(verdict).startswith("Correct.")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_not_attempted(name):
    verdict = judge(name, FUNCTIONS[name][1])
    assert verdict.status == "not attempted" and repr(verdict).startswith("Not attempted yet")


@pytest.mark.parametrize(("name", "mutant", "words"), MUTANT_CASES)
def test_a_wrong_solution_gets_its_diagnosis(name, mutant, words):
    found = diagnosis(name, mutant)
    assert found.startswith("Not yet: ") and words in found
    assert "  " not in found, "what yours.inputs says is known only after the call"


@pytest.mark.parametrize("name", MUTANTS)
def test_no_two_wrong_solutions_get_the_same_diagnosis(name):
    found = [diagnosis(name, mutant) for mutant, _ in MUTANTS[name]]
    words = [words for _, words in MUTANTS[name]]
    assert [[one for one in words if one in text] for text in found] == [[one] for one in words]


def raises(*arguments):
    raise RuntimeError("no idea")


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, "not attempted"),
        (..., "not attempted"),
        ("r * (d_in + d_out)", "wrong"),
        (42, "wrong"),
        (raises, "wrong"),
        (lambda: 1, "wrong"),
        (lambda *a: "text", "wrong"),
        (lambda *a: [1, [2, 3]], "wrong"),
        (lambda *a: {"r": 1}, "wrong"),
        (lambda *a: np.zeros((0, 3)), "wrong"),
        (lambda *a: np.nan, "wrong"),
        (lambda *a: object(), "wrong"),
        (lambda *a: np.inf, "wrong"),
        (lambda *a: 10**400, "wrong"),
        (lambda *a: 1j, "wrong"),
        (lambda *a: (number for number in (1, 2)), "wrong"),
        (lambda *a: exit(), "wrong"),
    ],
)  # fmt: skip
def test_a_checker_raises_for_no_answer(name, answer, status):
    assert judge(name, answer).status == status


@pytest.mark.parametrize("name", EXERCISES)
def test_hints_and_verdicts_can_be_printed_on_a_console_of_windows(name):
    texts = [*EXERCISES[name], repr(judge(name, FUNCTIONS[name][0])), repr(judge(name, None))]
    texts += [repr(judge(name, mutant)) for mutant, _ in MUTANTS[name]]
    for text in texts:
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


@pytest.fixture
def double(monkeypatch):
    """A checker that is registered for one test."""
    monkeypatch.setattr(framework, "EXERCISES", {})

    @exercise(hints=("first hint", "second hint"))
    def double(yours: Yours) -> str:
        for x in (3, 5):
            got = yours(x)
            compare(f"result for {yours.inputs}", got, 2 * x, {"that is x squared": x * x})
        return "Well counted."

    return double


def test_each_wrong_answer_gets_the_next_hint_and_a_correct_one_starts_again(double):
    second_lines = [repr(double(lambda x: x)).splitlines()[1] for _ in range(4)]
    folded = "The hints and a solution are folded up below this cell."
    assert second_lines == ["Hint 1: first hint", "Hint 2: second hint", folded, folded]
    assert repr(double(lambda x: 2 * x)) == "Correct. Well counted."
    assert repr(double(lambda x: x)).splitlines()[1] == "Hint 1: first hint"


def test_what_is_not_an_attempt_uses_up_no_hint(double):
    double(None)
    double(lambda x: None)
    assert repr(double(lambda x: x)).splitlines()[1] == "Hint 1: first hint"


def test_a_verdict_names_the_learners_own_arguments(double):
    wrong = double(lambda number: number)
    assert wrong.message.startswith("Not yet: your result for number=3 is 3; expected 6.\n")
    wrong = double(lambda number: number * 2 if number == 3 else number * number)
    assert "for number=5 is 25; expected 10: that is x squared." in wrong.message


def test_an_exception_of_the_function_is_told_in_the_learners_terms(double):
    message = double(lambda number: number / 0).message
    assert "your function raised ZeroDivisionError: division by zero for number=3." in message


def test_none_after_an_answer_is_a_wrong_answer_and_not_a_stub(double):
    wrong = double(lambda x: 6 if x == 3 else None)
    assert wrong.message.startswith("Not yet: it returns None for x=5.")


def test_a_result_instead_of_the_function_is_refused_with_the_remedy(double):
    assert "the function itself, not its result: check.double(double)." in double(2).message


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (np.zeros((16, 64)), "your ΔW is an array of shape (16, 64); expected an array of shape"),
        (3.0, "your ΔW is a number; expected an array of shape (2, 3)"),
        (np.array([[0, 1, 2], [3, 9, 5]]), "your ΔW is 9 at [1, 1]; expected 4"),
        (np.array([[0, 1, 2], [3, np.nan, 5]]), "your ΔW is nan at [1, 1]; expected 4"),
        ("abc", "your ΔW is of type str; expected an array of shape (2, 3)"),
    ],
)
def test_compare_says_whether_kind_shape_or_value_differs(got, words):
    with pytest.raises(framework.Wrong) as wrong:
        compare("ΔW", got, np.arange(6.0).reshape(2, 3))
    assert words in str(wrong.value)


def test_compare_knows_a_mistake_by_its_shape_or_by_its_values():
    right = np.arange(6.0).reshape(2, 3)
    mistakes = {"A comes first": right.T, "s is missing": right / 2}
    for wrong, why in ((right.T, "A comes first"), (right / 2, "s is missing")):
        with pytest.raises(framework.Wrong, match=why):
            compare("ΔW", wrong, right, mistakes)


def test_compare_takes_tensors_float32_and_rounding_but_counts_must_be_exact():
    right = np.linspace(0, 1, 6).reshape(2, 3)
    compare("y", ml.Tensor(right.astype(np.float32)), right)
    compare("y", right * (1 + 1e-9), right)
    compare("count", 4_194_304.0, 4_194_304)
    with pytest.raises(framework.Wrong, match="4,194,305; expected 4,194,304"):
        compare("count", 4_194_305, 4_194_304)
    with pytest.raises(framework.Wrong):
        compare("y", right + 1e-5, right)


def test_require_ends_a_check_with_its_message():
    require(True, "never said")
    with pytest.raises(framework.Wrong, match="too many"):
        require(False, "too many")


def test_a_whole_number_too_large_for_an_array_is_shown():
    with pytest.raises(framework.Wrong, match=r"your count is 1,000,.*; expected a number"):
        compare("count", 10**30, 5)


@pytest.mark.parametrize("hints", ["a nudge", ("one",), ("one", "two", "three"), ("one", None)])
def test_an_exercise_has_two_hints(hints):
    with pytest.raises(UsageError, match="an exercise has two hints, each a text; got "):
        exercise(hints=hints)


def test_two_exercises_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(framework, "EXERCISES", {})

    def double(yours: Yours) -> None: ...

    exercise(hints=("add", "`x + x`"))(double)
    with pytest.raises(ValueError, match="two exercises named 'double'"):
        exercise(hints=("multiply", "`2 * x`"))(double)
