"""The page's counter says what analysis/counting.py says, whatever is typed."""

import ast
import re
from contextlib import redirect_stdout
from io import StringIO

import pytest

from minilora.analysis.counting import (
    ARCHITECTURES,
    break_even_rank,
    checkpoint_bytes,
    lora_parameters,
    matrix_shapes,
    memory_ladder,
    total_parameters,
    training_bytes,
)
from minilora.learn.page.count.count_data import count_data

pytestmark = pytest.mark.browser

COUNTED = """(() => {
  const model = countedModel(DATA.count);
  const targets = countTargets(model);
  return {
    targets,
    trained: loraParameters(model, get("count.r"), targets),
    total: model.total,
    ladder: memoryLadder(model, get("count.r"), targets, DATA.count.nf4_bits),
  };
})()"""


def values(model, r, targets):
    """The state of the page in which these are counted."""
    every = {name for known in count_data()["models"].values() for name in known["shapes"]}
    ticks = {f"count.{name}": str(name in targets).lower() for name in every}
    return {"count.model": model, "count.r": r, **ticks}


def expected(model, r, targets):
    config = ARCHITECTURES[model]
    return {
        "trained": lora_parameters(config, r, targets),
        "total": total_parameters(config),
        "ladder": memory_ladder(config, r, targets),
    }


def approx(found):
    """Whole numbers exactly; bytes of a model in NF4 are no whole numbers."""
    return {
        **found,
        "ladder": {
            method: pytest.approx(parts, rel=1e-12) for method, parts in found["ladder"].items()
        },
    }


def test_every_model_and_choice_of_matrices_counts_as_counting_py_does(open_page):
    page = open_page()
    for model, config in ARCHITECTURES.items():
        names = list(matrix_shapes(config))
        choices = [["q_proj", "v_proj"], names, names[-1:], names[2:]]
        if "c_attn" in count_data()["models"][model]["shapes"]:
            choices.append(["c_attn", "o_proj"])
        for r, targets in [(r, targets) for r in (1, 8, 300) for targets in choices]:
            state = {
                name: {"true": True, "false": False}.get(value, value)
                for name, value in values(model, r, targets).items()
            }
            page.evaluate("(values) => setAll(values)", state)
            found = page.evaluate(COUNTED)
            assert sorted(found.pop("targets")) == sorted(targets), model
            assert found == approx(expected(model, r, targets)), (model, r, targets)


@pytest.mark.parametrize(
    ("model", "r", "targets", "trained"),
    [  # numbers that papers and PEFT print
        ("gpt2", 8, ["c_attn"], "294,912"),
        ("llama-2-7b", 8, ["q_proj", "v_proj"], "4,194,304"),
        ("gpt3-175b", 4, ["q_proj", "v_proj"], "18,874,368"),
    ],
)
def test_it_says_the_numbers_of_the_papers(open_page, model, r, targets, trained):
    page = open_page(values(model, r, targets))
    assert f" trains {trained} numbers, " in page.locator("#count-finding").text_content()


@pytest.mark.parametrize("model", ["gpt2", "llama-3-8b", "own"])
def test_its_lines_of_python_print_the_numbers_that_it_shows(open_page, model):
    page = open_page({"count.model": model, "count.r": 5, "count.d_out": 1000})
    printed = StringIO()
    with redirect_stdout(printed):
        exec(page.locator("#count .python code").text_content(), {})
    lines = dict(
        re.fullmatch(r"(.+?) (\d.*|{.*)", line).groups() for line in printed.getvalue().splitlines()
    )
    found = page.evaluate(COUNTED)
    assert [int(lines["trained"]), int(lines["total"])] == [found["trained"], found["total"]]
    ladder = {"lora": lines["bytes"]} if model == "own" else {m: lines[m] for m in found["ladder"]}
    for method, text in ladder.items():
        assert found["ladder"][method] == pytest.approx(ast.literal_eval(text), rel=1e-12)


def test_matrices_of_ones_own_are_counted(open_page):
    sizes = {"count.d_in": 768, "count.d_out": 3072, "count.layers": 12, "count.r": 4}
    page = open_page({"count.model": "own", **sizes})
    found = page.evaluate(COUNTED)
    trained, total = 12 * 4 * (768 + 3072), 12 * 768 * 3072
    assert [found["trained"], found["total"]] == [trained, total]
    assert found["ladder"]["lora"] == training_bytes(total, trained)
    row = page.locator("#count-matrices tr").text_content()
    assert page.evaluate(f"readable({break_even_rank(768, 3072)}, 6)") in row
    assert "614.4" in row


def test_the_table_shows_the_bytes_of_files_and_optimizer(open_page):
    page = open_page(values("gpt2", 8, ["c_attn"]))
    cells = dict(
        (
            row.locator("th").text_content(),
            row.locator("td").last.text_content().replace("\xa0", " "),
        )
        for row in page.locator("#count-costs tr").all()
    )
    assert checkpoint_bytes(294_912) == 589_824
    assert cells == {
        "numbers that train": "294,912",
        "file at 2 bytes": "590 KB",
        "file at 4 bytes": "1.18 MB",
        "files of 100 tasks": "308 MB",
        "gradients": "590 KB",
        "optimizer": "2.36 MB",
    }


NO_SIZES = {
    "r": ["0", "-8", "2.5", "1e20", "", "abc"],
    "d-in": ["-1", "1e20", "--"],
    "d-out": ["", "1000001"],
    "layers": ["1001"],
}


def test_what_is_no_size_is_said_beside_the_field_and_breaks_nothing(open_page):
    page = open_page({"count.model": "own"})
    finding = page.locator("#count-finding")
    for field, typed in [(field, typed) for field, many in NO_SIZES.items() for typed in many]:
        before = finding.text_content()
        control = page.locator(f"#count-{field}")
        value = control.input_value()
        control.fill("")
        if typed in ("abc", "--"):
            control.press_sequentially(typed)  # Chromium lets a field of numbers keep some of it
        else:
            control.fill(typed)  # at once, as when it is pasted
        said = page.locator(f"#count-{field} + .problem").text_content()
        limit = control.get_attribute("max")
        wanted = f"Type a whole number from 1 to {int(limit):,}."
        assert said == f"{wanted} The results are still those of {int(value):,}.", (field, typed)
        assert control.get_attribute("aria-invalid") == "true"
        assert finding.text_content() == before, (field, typed)
        control.fill(str(int(value) + 1))
        assert page.locator(f"#count-{field} + .problem").text_content() == ""
        assert finding.text_content() != before


def test_an_address_with_values_that_cannot_be_gives_the_default(open_page):
    wrong = {"model": "gpt-5", "r": 1e20, "d_in": 0.5, "layers": "many", "q_proj": "perhaps"}
    page = open_page({f"count.{name}": value for name, value in wrong.items()})
    assert page.evaluate(COUNTED)["trained"] == 4_194_304
    assert page.evaluate("['d_in', 'layers'].map((name) => get(`count.${name}`))") == [4096, 1]


def test_the_largest_sizes_are_still_exact(open_page):
    sizes = {"count.d_in": 10**6, "count.d_out": 10**6, "count.layers": 1000, "count.r": 10**6 - 1}
    page = open_page({"count.model": "own", **sizes})
    found = page.evaluate(COUNTED)
    assert [found["trained"], found["total"]] == [1000 * (10**6 - 1) * 2 * 10**6, 1000 * 10**12]


def test_a_rank_beyond_the_break_even_is_named(open_page):
    page = open_page({"count.model": "own", "count.d_in": 8, "count.d_out": 8})
    remark = page.locator("#count-rank")
    page.locator("#count-r").fill("3")
    assert remark.text_content() == "Below the break-even rank A and B have fewer numbers than W."
    page.locator("#count-r").fill("4")
    assert remark.text_content() == "At this rank LoRA trains at least as many numbers as W has: W."
    page.locator("#count-r").fill("9")
    assert remark.text_content().endswith(" And no ΔW of W can have so high a rank.")


def test_without_a_matrix_it_asks_for_one(open_page):
    page = open_page()
    for name in ("q_proj", "v_proj"):
        page.get_by_label(name, exact=True).uncheck()
    assert page.locator("#count-problem").text_content() == "Tick at least one matrix to adapt."
    assert not page.locator("#count-result").is_visible()
    page.get_by_label("up_proj", exact=True).check()
    assert " on up_proj trains " in page.locator("#count-finding").text_content()
    assert page.locator("#count-result").is_visible()


def test_every_matrix_is_peft_s_all_linear(open_page):
    page = open_page({"count.model": "gpt2", "count.c_attn": "true"})
    page.get_by_role("button", name="Every matrix").click()
    wanted = lora_parameters(ARCHITECTURES["gpt2"], 8, "all-linear")
    assert page.evaluate(COUNTED)["trained"] == wanted
    page.get_by_role("button", name="Only q_proj and v_proj").click()
    assert page.evaluate(COUNTED)["targets"] == ["q_proj", "v_proj"]


def test_w_a_and_b_are_drawn_to_scale(open_page):
    sizes = {"count.d_in": 600, "count.d_out": 200, "count.r": 50}
    page = open_page({"count.model": "own", **sizes})
    W, A, B = (
        [float(r.get_attribute(name)) for name in ("height", "width")]
        for r in page.locator("#count-drawing rect").all()
    )
    assert W[0] / W[1] == pytest.approx(3)
    assert (A[0], B[1]) == (W[0], W[1])
    assert A[1] == B[0] == pytest.approx(W[1] / 4)


@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_barrier_in_the_counter(open_page, barriers, width):
    page = open_page({"predict": "true", "guess.count": "4m"}, width=width)
    page.evaluate("document.querySelectorAll('#count details').forEach((d) => (d.open = true))")
    assert barriers(page, "#count") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
