"""Claims about text and answers from a model with a tokenizer: they end where the model ends them,
appear piece by piece, and fit what the model can read."""

import numpy as np
import pytest
from builders import tiny
from tokens import SPECIAL, write_tokenizer

from minilora.generation.answers import answer
from minilora.generation.sampling import generate, write
from minilora.hub.tokenizers import load_tokenizer
from minilora.system.errors import UsageError
from minilora.tensor import Tensor
from minilora.transformer import Transformer

USER = [{"role": "user", "content": "What is LoRA?"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


class Says(Transformer):
    """Writes one text, whatever it is asked; notes what it was asked."""

    def __init__(self, tokenizer, text, block_size=400):
        config = tiny("llama", vocab_size=tokenizer.vocab_size, block_size=block_size).config
        super().__init__(config, rng=np.random.default_rng(0))
        self.can_cache = False
        self.ids = tokenizer.encode(text, special=True)
        self.asked = None

    def __call__(self, ids, rng=None, cache=None):
        if self.asked is None:
            self.asked = ids[0]
        logits = np.zeros((*ids.shape, self.config.vocab_size), np.float32)
        logits[:, -1, self.ids[ids.shape[1] - len(self.asked)]] = 9
        return Tensor(logits)


def test_a_text_ends_where_the_model_ends_it(tokenizer):
    model = Says(tokenizer, " is 😀 a change.<|im_end|>never")
    shown = []
    text = write(model, "LoRA", 60, tokenizer=tokenizer, temperature=0, on_text=shown.append)
    assert text == "LoRA is 😀 a change." == "LoRA" + "".join(shown)
    assert "😀" in "".join(shown) and "" not in shown and not any("\ufffd" in s for s in shown)
    assert model.asked.tolist() == tokenizer.encode("LoRA").tolist()


def test_a_text_that_is_cut_off_has_as_many_tokens_as_were_asked_for(tokenizer):
    text = write(Says(tokenizer, "ab cd ef gh"), "x", 3, tokenizer=tokenizer, temperature=0)
    assert text == "x" + tokenizer.decode(tokenizer.encode("ab cd ef gh")[:3])


def test_what_is_written_is_what_generate_draws(tokenizer):
    model = tiny("llama", vocab_size=tokenizer.vocab_size)
    ids = tokenizer.encode("LoRA")
    rng, ends = np.random.default_rng(7), tokenizer.eos_ids
    drawn = generate(model, ids, 9, temperature=0.9, top_k=50, rng=rng, eos_token_id=ends)
    text = write(model, "LoRA", 9, tokenizer=tokenizer, temperature=0.9, top_k=50, seed=7)
    assert text == "LoRA" + tokenizer.decode(drawn[0, len(ids) :])


def test_several_tokens_may_end_a_text(tokenizer):
    model = tiny("llama", vocab_size=tokenizer.vocab_size)
    free = generate(model, np.array([[3, 4], [5, 6]]), 8, temperature=0)
    ends = (int(free[0, 4]), int(free[1, 6]))
    ended = generate(model, np.array([[3, 4], [5, 6]]), 8, temperature=0, eos_token_id=ends)
    for row, whole in zip(ended, free, strict=True):
        first = 2 + int(np.flatnonzero(np.isin(whole[2:], ends))[0])
        assert (row[:first] == whole[:first]).all() and (row[first:] == whole[first]).all()


def test_an_answer_follows_the_chat_and_ends_with_its_end(tokenizer):
    model = Says(tokenizer, "A change.<|im_end|>\n<|im_start|>user\n")
    assert answer(model, tokenizer, USER, 50) == "A change."
    assert model.asked.tolist() == tokenizer.encode_chat(USER).tolist()


def chat(turns, system=True):
    first = [{"role": "system", "content": "Be brief."}] if system else []
    for i in range(turns):
        first += [{"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": f"A{i}"}]
    return [*first, {"role": "user", "content": "last"}]


@pytest.mark.parametrize("system", [True, False])
def test_the_oldest_exchanges_are_forgotten_and_the_system_message_is_not(tokenizer, system):
    messages = chat(20, system)
    model = Says(tokenizer, "Yes.<|im_end|>", block_size=260)
    assert answer(model, tokenizer, messages, 20, temperature=0) == "Yes."
    asked = tokenizer.decode(model.asked, special=True)
    assert len(model.asked) <= 240 and asked.startswith("<|im_start|>system\nBe") == system
    kept = [i for i in range(20) if f"Q{i}<" in asked]
    assert kept == list(range(kept[0], 20)) and 0 < kept[0] < 19
    assert f"A{kept[0]}<" in asked and f"A{kept[0] - 1}<" not in asked and len(messages) > 40


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda t: answer(tiny(vocab_size=360), t, chat(9), 20), "reads 24 at a time; ask less"),
        (lambda t: answer(tiny(vocab_size=360), t, USER, 0), "length must be a whole number"),
        (lambda t: answer(tiny(vocab_size=359, block_size=99), t, USER, 9), "is of another model"),
        (lambda t: write(tiny(), "a", 3, tokenizer=t), "is of another model: this one has 11"),
        (lambda t: write(tiny(vocab_size=360), "a", 3, tokenizer=t, stop="."), "stop is a symbol"),
        (lambda t: write(tiny(vocab_size=360), "", 3, tokenizer=t), "the prompt is empty"),
        (lambda t: write(tiny(vocab_size=360), "a", 3), "this model has 360; pass its tokenizer"),
        (lambda t: write(tiny(vocab_size=360), "a", 3, tokenizer=t, on_text=3), "on_text must be"),
    ],
)
def test_wrong_use_is_one_sentence(tokenizer, call, sentence):
    assert SPECIAL[2] in tokenizer.special_ids
    with pytest.raises(UsageError, match=sentence):
        call(tokenizer)
