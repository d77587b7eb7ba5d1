"""Claims about the frame of the exercises: what is accepted, which reason is named and when, and
what a learner's function may do without harm."""

import contextlib
import sys
import time
from fractions import Fraction
from functools import partial

import coverage
import numpy as np
import pytest

import minilora as ml
from minilora.learn import check
from minilora.learn import exercises as framework
from minilora.learn.exercises import Wrong, Yours, exercise, require, unpack
from minilora.system.errors import UsageError

THREE = np.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def _exercises_of_one_test(monkeypatch):
    monkeypatch.setattr(framework, "EXERCISES", {})
    monkeypatch.setattr(framework, "_wrong_answers", type(framework._wrong_answers)())
    monkeypatch.setattr(framework, "TIME_LIMIT", 0.5)
    monkeypatch.setenv(framework.STRICT, "")


@pytest.fixture
def double():
    @exercise(hints=("first hint", "second hint"))
    def double(yours: Yours) -> str:
        for x in (3, 5, 2):
            known = {"that is x squared": x * x, "that is x plus three": x + 3}
            got = yours(x)
            yours.compare(f"result for {yours.inputs}", got, 2 * x, known)
        return "Well counted."

    return double


@pytest.fixture
def scaled():
    """An exercise whose argument is an array."""

    @exercise(hints=("first hint", "second hint"))
    def scaled(yours: Yours) -> None:
        yours.compare("matrix", yours(THREE.copy(), [1, 2], {"s": 2}), 2 * THREE)

    return scaled


def told(verdict: check.Verdict) -> str:
    assert verdict.status == "wrong"
    return verdict.message.splitlines()[0]


def test_each_wrong_answer_gets_the_next_hint_and_a_correct_one_starts_again(double):
    second_lines = [repr(double(lambda x: x)).splitlines()[1] for _ in range(4)]
    assert second_lines == ["Hint 1: first hint", *["Hint 2: second hint"] * 3]
    assert repr(double(lambda x: 2 * x)) == "Correct. Well counted."
    assert repr(double(lambda x: x)).splitlines()[1] == "Hint 1: first hint"


def stub(x): ...


def test_what_is_not_an_attempt_uses_up_no_hint(double):
    double(None)
    double(stub)
    assert repr(double(lambda x: x)).splitlines()[1] == "Hint 1: first hint"


def test_a_verdict_is_true_only_if_the_answer_is_correct(double):
    answers = {"correct": lambda x: 2 * x, "wrong": lambda x: x, "not attempted": stub}
    for status, answer in answers.items():
        verdict = double(answer)
        assert (verdict.exercise, verdict.status) == ("double", status)
        assert bool(verdict) is (status == "correct")


def test_in_strict_mode_a_check_raises_unless_the_answer_is_correct(double):
    check.strict()
    assert double(lambda x: 2 * x)
    with pytest.raises(AssertionError, match=r"^double: Not yet: your result for x=3 is 3; expec"):
        double(lambda x: x)
    with pytest.raises(AssertionError, match=r"^double: Not attempted yet"):
        double(...)
    check.strict(False)
    assert not double(lambda x: x)


def test_a_reason_is_named_only_if_it_explains_every_case(double):
    assert told(double(lambda x: x * x)).endswith("is 9; expected 6: that is x squared.")


def test_a_reason_that_explains_this_case_but_not_all_is_put_as_a_question(double):
    found = told(double(lambda x: x * x if x == 3 else 0))
    assert found.endswith(
        'expected 6. Is this the reason: "that is x squared"? It would explain this, but not every '
        "case."
    )


def test_a_reason_that_explains_this_case_is_a_question_if_a_later_one_raises(double):
    found = told(double(lambda x: x * x if x == 3 else 1 / 0))
    assert 'for x=3 is 9; expected 6. Is this the reason: "that is x squared"?' in found


def test_of_two_reasons_the_one_that_explains_more_is_asked(double):
    found = told(double(lambda x: {3: 4, 5: 8, 2: 5}[x]))
    assert found.endswith("your result for x=3 is 4; expected 6.")
    found = told(double(lambda x: {3: 6, 5: 8, 2: 5}[x]))
    assert found.endswith("your result for x=5 is 8; expected 10: that is x plus three.")


def test_without_a_known_reason_input_result_and_expectation_are_told(double):
    assert told(double(lambda n: n)) == "Not yet: your result for n=3 is 3; expected 6."


def test_an_exception_is_told_in_the_learners_terms_with_its_line(double):
    def halve(number):
        return number / 0

    found = told(double(halve))
    assert "your function raised ZeroDivisionError: division by zero for number=3" in found
    assert "in the line `return number / 0`" in found


def forever(x):
    while True:
        x += 1


def forever_whatever_is_raised(x):
    while True:
        with contextlib.suppress(Exception):
            x += 1


def forever_in_one_line(x):
    while True: pass  # noqa: E701 # fmt: skip


def forever_behind_a_bare_except(x):
    while True:
        try:  # noqa: SIM105
            x = forever(x)
        except:  # noqa: E722
            pass


def forever_in_a_loop_that_catches_all_in_a_loop_that_does(x):
    while True:
        with contextlib.suppress(BaseException):
            forever_behind_a_bare_except(x)


def forever_and_counts_what_it_catches(x):
    caught = 0
    while caught < 5:
        try:
            forever(x)
        except BaseException as error:
            caught += bool(error)
    forever(x)


def late(x):
    time.sleep(0.6)
    return 2 * x


@pytest.mark.parametrize(
    "answer",
    [
        forever,
        forever_whatever_is_raised,
        forever_in_one_line,
        forever_behind_a_bare_except,
        forever_in_a_loop_that_catches_all_in_a_loop_that_does,
        forever_and_counts_what_it_catches,
        late,
    ],
)
def test_an_answer_that_takes_too_long_is_ended(double, answer):
    found = told(double(answer))
    assert "no result after 0.5 seconds for x=3: does a loop never end?" in found
    assert double(lambda x: 2 * x)


def test_an_answer_that_was_late_and_caught_it_is_not_ended_later(double):
    def patient(x):
        with contextlib.suppress(BaseException):
            time.sleep(0.6)
            x += 1
        return 2 * x

    before = sys.gettrace()
    double(patient)
    assert sys.gettrace() is before


def test_after_a_check_what_traced_the_program_before_traces_it_again(double):
    before = sys.gettrace()
    double(lambda x: 2 * x)
    double(lambda x: 1 / 0)
    assert sys.gettrace() is before


def test_coverage_sees_what_a_checker_does_after_a_call():
    def checker(yours: Yours) -> str:
        yours(1)
        remark = "seen"
        yours(2)
        return remark

    first = checker.__code__.co_firstlineno
    counted = coverage.Coverage(data_file=None, include=[__file__])
    counted.start()
    exercise(hints=("first", "second"))(checker)(lambda x: x)
    counted.stop()
    lines = counted.get_data().lines(__file__)
    assert {first + i for i in (1, 2, 3, 4)} <= set(lines)


def test_a_recursion_without_end_is_told(double):
    def deeper(x):
        return deeper(x)

    assert "your function raised RecursionError" in told(double(deeper))


@pytest.mark.parametrize("leave", [lambda x: exit(), lambda x: sys.exit(0)])
def test_an_exit_ends_the_answer_and_not_the_notebook(double, leave):
    assert "it ends Python with exit() for x=3; put return in place of it" in told(double(leave))


def test_a_result_that_is_printed_instead_of_returned_is_recognised(double, capsys):
    found = told(double(lambda x: print(2 * x)))
    assert "it prints and returns None for x=3; put return in place of print" in found
    assert capsys.readouterr().out == "6\n"


def test_prints_beside_a_return_do_no_harm(double, capsys):
    def chatty(x):
        print("x is", x)
        return 2 * x

    assert double(chatty)
    assert capsys.readouterr().out == "x is 3\nx is 5\nx is 2\n"


def only_words(x):
    """What it will do."""


def passes(x):
    pass


def returns_nothing(x):
    return None


def returns_dots(x):
    return ...


def raises(x):
    raise NotImplementedError


def raises_with_words(x):
    raise NotImplementedError("still to do")


def asks_a_stub(x):
    return 2 * stub(x) if x < 0 else stub(x)


class Callable:
    def __call__(self, x):
        """Nothing yet."""


@pytest.mark.parametrize(
    "answer",
    [
        stub, only_words, passes, returns_nothing, returns_dots, raises, raises_with_words,
        asks_a_stub, Callable(), partial(stub),
    ],
)  # fmt: skip
def test_a_stub_is_not_attempted_in_whatever_form_and_wherever_it_stands(double, answer):
    assert double(answer).status == "not attempted"


def forgets(x):
    2 * x


def forgets_a_result(x):
    result = 2 * x  # noqa: F841


def forgets_at_the_end(x):
    for _ in range(2):
        x = x + x


def raises_for_some(x):
    if x:
        raise NotImplementedError


def asserts(x):
    assert False  # noqa: B011, PT015


@pytest.mark.parametrize("answer", [forgets, forgets_a_result, forgets_at_the_end])
def test_an_answer_without_a_return_is_no_stub(double, answer):
    assert told(double(answer)) == "Not yet: it returns None for x=3; is return missing?"


def test_what_raises_not_implemented_error_and_does_more_is_no_stub(double):
    assert "your function raised NotImplementedError" in told(double(raises_for_some))


def test_what_raises_another_error_is_no_stub(double):
    assert "your function raised AssertionError" in told(double(asserts))


def test_none_after_an_answer_is_a_wrong_answer_and_not_a_stub(double):
    found = told(double(lambda x: 6 if x == 3 else None))
    assert "it returns None for x=5; is return missing in one of its branches?" in found


def test_a_result_instead_of_the_function_is_refused_with_the_remedy(double):
    assert "the function itself, not its result: check.double(double)." in told(double(2))


def test_ctrl_c_goes_through(double):
    def pressed(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        double(pressed)


def in_place(M, numbers, options):
    M *= 2
    return M


def sorts_the_list(M, numbers, options):
    numbers.reverse()
    return 2 * M


def pops(M, numbers, options):
    return options.pop("s") * M


@pytest.mark.parametrize(
    ("answer", "name", "instead"),
    [
        (in_place, "M", "new = M + ..."),
        (sorts_the_list, "numbers", "numbers = list(numbers)"),
        (pops, "options", "options = dict(options)"),
    ],
)
def test_an_input_that_was_changed_is_named_and_how_to_make_a_new_one(
    scaled, answer, name, instead
):
    said = told(scaled(answer))
    assert f"you changed the {name} you were given" in said
    assert said.endswith(f"as in `{instead}`.")


@pytest.mark.parametrize(
    "make", [lambda: ml.Tensor(THREE.copy()), lambda: ml.Linear(3, 2, rng=np.random.default_rng(0))]
)
def test_a_tensor_or_a_model_that_was_changed_is_named_unless_that_is_the_task(make):
    def spoil(it):
        (it.weight if hasattr(it, "weight") else it).data[...] = 0
        return 1

    def freeze(it):
        it.requires_grad = False
        if hasattr(it, "weight"):
            it.weight.requires_grad = False
        return 1

    for answer in (spoil, freeze):
        yours, given = Yours(answer), make()
        (given.weight if hasattr(given, "weight") else given).requires_grad = True
        with pytest.raises(Wrong, match="you changed the it you were given: leave .*`.requires_g"):
            yours(given)
        assert yours(given, changes=[0]) == 1


def test_what_an_answer_returns_is_guarded_too():
    class Layer:
        def __call__(self, x):
            x += 1

        def forward(self, x):
            return x / 0

    yours = Yours(Layer)
    layer = yours()
    with pytest.raises(Wrong, match="you changed the x you were given"):
        yours.use(layer, THREE.copy())
    with pytest.raises(Wrong, match=r"raised ZeroDivisionError: .* for x=1, in the line `return x"):
        yours.use(layer.forward, 1)


def test_an_object_and_a_class_are_shown_by_their_kind_without_an_address():
    class _Chain:
        pass

    yours = Yours(lambda model, layer: 1)
    yours(_Chain(), _Chain)
    assert yours.inputs == "model=a Chain, layer=the class Chain"


def test_small_arrays_are_shown_and_large_ones_by_their_shapes():
    yours = Yours(lambda S, W, r: 1)
    yours(np.array([4.0, 2.0]), np.zeros((2, 3)), 2)
    assert yours.inputs == "S=[4.0, 2.0], W (2, 3), r=2"
    yours(np.array([1.0, 2.0, 4.0]) / 3e7, 0, 2)
    assert yours.inputs == "S=[3.333e-08, 6.667e-08, 1.333e-07], W=0, r=2"
    yours = Yours(partial(lambda a, b: 1, b=3))
    yours(np.zeros(20))
    assert yours.inputs == "a (20,)"


def test_a_module_and_a_generator_are_shown_by_their_kind_without_an_address():
    yours = Yours(lambda base, rng: 1)
    rng = np.random.default_rng(0)
    yours(ml.Linear(2, 3, rng=rng), rng)
    assert yours.inputs == "base=a Linear, rng=a Generator"


def compared(got, expected, tolerance=1e-5):
    yours = Yours(lambda: 1)
    yours.compare("ΔW", got, expected, tolerance=tolerance)
    return yours.diagnosis(to_the_end=True)


@pytest.mark.parametrize(
    "got",
    [
        THREE, THREE.tolist(), THREE.astype(np.float32), THREE.astype(int), ml.Tensor(THREE),
        tuple(map(tuple, THREE)), [list(map(Fraction, row)) for row in THREE], THREE * (1 + 1e-7),
    ],
)  # fmt: skip
def test_a_right_array_in_any_form_is_right(got):
    assert compared(got, THREE) is None


@pytest.mark.parametrize(
    "got", [4_194_304, 4_194_304.0, np.int32(4_194_304), np.array(4_194_304), Fraction(4_194_304)]
)
def test_a_right_count_in_any_form_is_right(got):
    assert compared(got, 4_194_304) is None


def test_counts_must_be_exact_and_other_numbers_near():
    assert compared(4_194_305, 4_194_304) == "your ΔW is 4,194,305; expected 4,194,304"
    assert compared(THREE + 1e-3, THREE) is not None


def test_of_texts_case_and_outer_spaces_do_not_count():
    assert compared(" lora ", "LoRA") is None
    assert compared("full", "LoRA") == "your ΔW is 'full'; expected 'LoRA'"
    assert compared(3, "LoRA") == "your ΔW is 3; expected 'LoRA'"


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (np.zeros((16, 64)), "your ΔW is an array of shape (16, 64); expected an array of shape"),
        (3.0, "your ΔW is a number; expected an array of shape (2, 3)"),
        (np.array([[0, 1, 2], [3, 9, 5]]), "your ΔW is 9 at [1, 1]; expected 4"),
        (np.array([[0, 1, 2], [3, np.nan, 5]]), "your ΔW is nan at [1, 1]; expected 4"),
        ("abc", "your ΔW is 'abc'; expected an array of shape (2, 3)"),
        ([1, [2, 3]], "your ΔW is of type list; expected an array of shape (2, 3)"),
        (10**400, "; expected an array of shape (2, 3)"),
        (1j, "your ΔW is of type complex; expected an array of shape (2, 3)"),
    ],
)
def test_compare_says_whether_kind_shape_or_value_differs(got, words):
    assert words in compared(got, THREE)


def test_several_values_may_be_a_tuple_a_list_or_an_array():
    for got in ((1, 2), [1, 2], np.array([1, 2])):
        assert unpack(got, "A, B") == [1, 2]
    with pytest.raises(Wrong, match=r"it returns 3 values; expected 2 values, as in `return A, B`"):
        unpack((1, 2, 3), "A, B")
    with pytest.raises(Wrong, match="it returns int; expected 2 values"):
        unpack(3, "A, B")


def test_require_ends_a_check_with_its_message():
    require(True, "never said")
    with pytest.raises(Wrong, match="too many"):
        require(False, "too many")


@pytest.mark.parametrize("hints", ["a nudge", ("one",), ("one", "two", "three"), ("one", None)])
def test_an_exercise_has_two_hints(hints):
    with pytest.raises(UsageError, match="an exercise has two hints, each a text; got "):
        exercise(hints=hints)


def test_two_exercises_of_one_name_are_refused():
    def double(yours: Yours) -> None: ...

    exercise(hints=("add", "`x + x`"))(double)
    with pytest.raises(ValueError, match="two exercises named 'double'"):
        exercise(hints=("multiply", "`2 * x`"))(double)


@pytest.mark.parametrize(
    ("guess", "measured", "good", "words"),
    [
        (..., 0.47, False, "Measured: 0.47 nats. Next time put a guess in place of the ..."),
        (0.45, 0.47, True, "Near enough: you said 0.45, measured is 0.47 nats."),
        (0.94, 0.47, False, "Too high by a factor of 2: measured is 0.47 nats."),
        (0.1, 0.47, False, "Too low by a factor of 4.7: measured is 0.47 nats."),
        (-1, 0.47, False, "No: you said -1, measured is 0.47 nats."),
        ("lora", "LoRA", True, "Right: LoRA."),
        ("full", "LoRA", False, "No: you said full, measured is LoRA."),
    ],
)
def test_a_guess_is_compared_with_what_was_measured(guess, measured, good, words):
    prediction = check.predict(guess, measured, unit="nats")
    assert bool(prediction) is good and repr(prediction) == words


def test_a_guess_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="the guess should be a number, got 'LoRA'"):
        check.predict("LoRA", 3.0)
