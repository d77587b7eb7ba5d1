"""The live model computes what NumPy computes, and writes what ml.generate writes."""

import base64
import json
import re
from urllib.parse import parse_qsl

import numpy as np
import pytest

import minilora as ml
from minilora.analysis.spectrum import singular_values
from minilora.experiments.tuning import set_up

pytestmark = pytest.mark.browser

KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
LAST = 2  # the place of the last of the steps in conftest.MARKS
STATES = [
    {"live.strength": 0},
    {"live.strength": 0.5},
    {},
    {"live.strength": 2},
    {"live.strength": 3, "live.time": 1},
    {"live.time": 0},
    {"live.rank": 3},
    {"live.rank": 2},
    {"live.rank": 1, "live.strength": 2},
    *({f"live.{kind}": "false"} for kind in KINDS),
    {f"live.{kind}": "false" for kind in KINDS},
    {"live.q_proj": "false", "live.up_proj": "false", "live.rank": 2, "live.strength": 1.5},
]


@pytest.fixture(scope="module")
def data(page_file):
    """What is in the page for the live model."""
    found = re.search(r'id="data">(.*?)</script>', page_file.read_text("utf-8"), re.DOTALL)
    return json.loads(found[1])["live"]


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)


def delta_weights(data, time, rank):
    """ΔW of each adapted matrix, from the numbers in the page."""
    flat, start, deltas = numbers(data["adapters"][time]), 0, {}
    for path in data["adapted"]:
        d_in, d_out = data["shapes"][f"{path}.weight"]
        middle, end = start + d_in * data["rank"], start + data["rank"] * (d_in + d_out)
        A = flat[start:middle].reshape(d_in, data["rank"])
        B = flat[middle:end].reshape(data["rank"], d_out)
        deltas[path], start = A[:, :rank] @ B[:rank], end
    assert start == len(flat)
    return deltas


def numpy_model(data, state):
    """The model of a state of the page, in NumPy."""
    model = ml.load_model("docs-tiny")
    parameters = dict(model.named_parameters())
    for path, delta in delta_weights(
        data, state.get("live.time", LAST), state.get("live.rank", 4)
    ).items():
        if state.get(f"live.{path.split('.')[-1]}") != "false":
            parameters[f"{path}.weight"].data += state.get("live.strength", 1) * delta
    return model


def wait_until_measured(page):
    """The surprise is measured last of all."""
    page.locator("#live-surprise[aria-busy=false]").wait_for()


def test_the_weights_in_the_page_are_docs_tinys(data):
    expected = [p.data.ravel() for p in ml.load_model("docs-tiny").parameters()]
    assert np.array_equal(numbers(data["weights"]), np.concatenate(expected))


def test_the_adapter_in_the_page_is_that_of_the_recipe_after_so_many_steps(data):
    for time, steps in enumerate(data["steps"]):
        tuned = set_up("code", "lora")
        for _ in range(steps):
            tuned.training.step()
        for path, delta in delta_weights(data, time, 4).items():
            exact = ml.get_delta_weight(tuned.model, path)
            assert np.abs(delta - exact).max() <= 2e-3 * np.abs(exact).max()


@pytest.mark.parametrize("state", STATES, ids=str)
def test_logits_equal_numpys(open_page, data, state):
    page = open_page(state)
    text = "class Tree:\n    def __init__(self, leaves):\n        "
    ids = ml.encode(text)[None]
    shown = page.evaluate(
        """(ids) => [live.model.weights, live.weights].map((weights) =>
            [...new Reader(live.model, weights).after(ids, ids.length)])""",
        ids[0].tolist(),
    )
    for logits, model in zip(
        shown, [ml.load_model("docs-tiny"), numpy_model(data, state)], strict=True
    ):
        assert np.abs(np.array(logits) - model(ids).data[0, -1]).max() <= 2e-5


def test_the_base_and_strength_0_are_the_same_to_the_last_bit(open_page):
    page = open_page({"live.strength": 0})
    wait_until_measured(page)
    assert page.evaluate(
        "Object.keys(live.weights).every((name) => live.weights[name] === live.model.weights[name])"
    )
    assert page.inner_text("#live-base-text") == page.inner_text("#live-adapted-text")


class PageRandom(np.random.Generator):
    """A generator that gives the page's uniform numbers: mulberry32."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64())
        self.state = seed

    def random(self, shape):
        self.state = (self.state + 0x6D2B79F5) % 2**32
        t = self.state
        t = (t ^ t >> 15) * (t | 1) % 2**32
        t ^= (t + (t ^ t >> 7) * (t | 61)) % 2**32
        return np.full(shape, ((t ^ t >> 14) % 2**32) / 2**32)


@pytest.mark.parametrize(
    "state",
    [
        {"live.temperature": 0},
        {"live.temperature": 0, "live.prompt": "x" * 60, "live.strength": 0.5},
        {"live.temperature": 1.2, "live.seed": 5},
        {"live.prompt": "import ", "live.rank": 2},
    ],
    ids=str,
)
def test_texts_equal_those_of_generate_with_the_same_random_numbers(open_page, data, state):
    page = open_page(state | {"live.written": 300})  # beyond the model's window of 64, many times
    wait_until_measured(page)
    prompt, temperature = state.get("live.prompt", "def "), state.get("live.temperature", 0.7)
    for place, model in [
        ("base", ml.load_model("docs-tiny")),
        ("adapted", numpy_model(data, state)),
    ]:
        rng = PageRandom(state.get("live.seed", 1))
        ids = ml.generate(model, ml.encode(prompt), 300, temperature=temperature, rng=rng)
        assert page.text_content(f"#live-{place}-text") == ml.decode(ids[0])


def test_a_text_stepped_to_is_the_text_jumped_to_and_so_is_the_next_character(open_page):
    state = {"live.after": "text", "live.seed": 3}
    stepped, jumped = (
        open_page(state | {"live.written": 90}),
        open_page(state | {"live.written": 110}),
    )
    for _ in range(20):
        stepped.click("#live-one")
    for page in (stepped, jumped):
        wait_until_measured(page)
    for place in ("#live-base-text", "#live-adapted-text", "#live-next"):
        assert stepped.text_content(place) == jumped.text_content(place)


def test_what_is_shown_is_restored_from_the_address(open_page):
    page = open_page({"live.seed": 5, "live.temperature": 1})
    page.get_by_role("button", name="MLP only").click()
    page.locator("#live-rank").press("ArrowLeft")
    page.get_by_role("button", name="From the start").click()
    for _ in range(3):
        page.get_by_role("button", name="One character").click()
    wait_until_measured(page)
    again = open_page(dict(parse_qsl(page.evaluate("address()").partition("#")[2])))
    wait_until_measured(again)
    assert again.inner_text("#live") == page.inner_text("#live")
    assert len(again.text_content("#live-base-text")) == len("def ") + 3


def test_an_address_that_is_changed_by_hand_is_followed(open_page):
    page = open_page()
    page.evaluate("location.hash = 'live.strength=2.5&live.rank=1'")
    page.locator("#live-now", has_text="at strength 2.5 and rank 1").wait_for()
    page.evaluate("location.hash = ''")
    page.locator("#live-now", has_text="at strength 1 and rank 4").wait_for()


def test_play_writes_on_until_it_is_paused(open_page):
    page = open_page({"live.written": 0})
    play = page.locator("#live-play")
    play.press("Enter")
    page.locator("#live-adapted-text", has_text=re.compile(r"def .{5}", re.DOTALL)).wait_for()
    play.press("Enter")
    assert play.inner_text() == "Write on"
    text = page.text_content("#live-adapted-text")
    page.wait_for_timeout(150)
    assert page.text_content("#live-adapted-text") == text


def test_watching_it_learn_goes_from_the_first_step_to_the_last(open_page, data):
    page = open_page()
    watched = []
    page.expose_function("note", lambda time: watched.append(time))
    page.evaluate("watch(['live.time'], () => note(get('live.time')))")
    page.get_by_role("button", name="watch it learn").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="watch it learn").wait_for()
    assert watched == list(range(len(data["steps"])))


@pytest.mark.parametrize("typed", ["", "naïve", "€"])
def test_a_prompt_that_the_model_cannot_read_is_said_so_beside_the_field(open_page, typed):
    page = open_page()
    page.fill("#live-prompt", typed)
    assert page.locator("#live").get_by_text("Type 1 to 60 letters").is_visible()
    assert page.get_attribute("#live-prompt", "aria-invalid") == "true"
    wait_until_measured(page)
    assert page.text_content("#live-base-text").startswith("def ")
    page.fill("#live-prompt", "class ")
    assert not page.locator("#live").get_by_text("Type 1 to 60 letters").is_visible()
    wait_until_measured(page)
    assert page.text_content("#live-base-text").startswith("class ")


def test_surprise_and_singular_values_are_numpys(open_page, data):
    state = {"live.time": 1, "live.strength": 1.5}
    page = open_page(state)
    wait_until_measured(page)
    shown = page.locator("#live-surprise tbody .number").all_inner_texts()
    models = [ml.load_model("docs-tiny"), numpy_model(data, state)]
    texts = [ml.load_corpus(name).test for name in ("code", "prose")]
    expected = [ml.text_loss(model, text, 8) for text in texts for model in models]
    assert [float(text) for text in shown] == pytest.approx(expected, abs=0.006)
    assert all(text in page.inner_text("#live-now") for text in shown)
    labels = page.locator("#live-spectrum .columns").evaluate_all(
        "all => all.map(e => e.ariaLabel)"
    )
    largest = [float(label.split(",")[0]) for label in labels]
    deltas = delta_weights(data, 1, 4)
    wanted = [
        singular_values(
            next(d for p, d in deltas.items() if p.startswith(f"layers.{i}.") and p.endswith(kind))
        )[0]
        for kind in KINDS
        for i in (0, 1)
    ]
    assert largest == pytest.approx(wanted, abs=0.006)


def test_the_surprise_is_known_at_once_where_it_was_measured_when_the_page_was_made(open_page):
    """Nobody who scrolls sees "…", and what the browser then measures is the same."""
    page = open_page({"live.strength": 2})
    at_once = """() => {
        live.kept = {};
        update();
        return [byId("live-now").textContent, byId("live-surprise").ariaBusy];
    }"""
    said, busy = page.evaluate(at_once)
    assert busy == "true"
    wait_until_measured(page)
    assert said == page.text_content("#live-now")
    page = open_page({"live.strength": 2, "live.rank": 1})
    said, _ = page.evaluate(at_once)
    assert said.endswith("…")


def test_at_step_0_every_singular_value_is_0_and_the_models_agree(open_page):
    page = open_page({"live.time": 0})
    wait_until_measured(page)
    assert set(page.locator("#live-spectrum .number").all_inner_texts()) == {"0.00"}
    assert page.text_content("#live-base-text") == page.text_content("#live-adapted-text")


def test_the_python_lines_give_the_numbers_that_are_shown(open_page, capsys):
    state = {
        "live.strength": 1.5,
        "live.rank": 2,
        "live.k_proj": "false",
        "live.temperature": 0,
        "live.written": 30,
    }
    page = open_page(state)
    wait_until_measured(page)
    exec(page.text_content("#live .python code"), {})
    code, prose, *text = capsys.readouterr().out.splitlines()
    shown = page.locator("#live-surprise td:last-child .number").all_inner_texts()
    assert [float(line.split()[0]) for line in (code, prose)] == pytest.approx(
        [float(x) for x in shown], abs=0.01
    )
    assert "\n".join(text)[:15] == page.text_content("#live-adapted-text")[:15]
