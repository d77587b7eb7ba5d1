"""Claims about likelihood.py: what is read once gives what is read again and again."""

import numpy as np
import pytest
from builders import adapted, tiny

from minilora.system.errors import UsageError
from minilora.training.likelihood import Likelihood

PROMPT = np.array([1, 2, 3, 4, 5, 6])
TEXTS = [np.array([7]), np.array([8, 9, 10]), np.array([0, 1])]


def log_p(model, prompt, text):
    """The definition: the whole sequence is read, and each token's probability looked up."""
    ids = np.concatenate([prompt, text])
    z = model(ids[None]).data[0, len(prompt) - 1 : -1].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return np.log(p[np.arange(len(text)), text])


@pytest.mark.parametrize("model", [tiny("gpt2"), tiny("llama"), adapted("llama")])
@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_text_is_as_likely_as_when_all_is_read_at_once(model, start):
    (found,) = Likelihood(model, PROMPT[:start])(PROMPT[None], [TEXTS])
    for text, got in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(got, log_p(model, PROMPT, text), atol=1e-5)


def test_prompts_and_texts_do_not_see_each_other():
    likelihood = Likelihood(tiny(), PROMPT[:2])
    other = np.array([1, 2, 9, 9, 0, 3])
    (alone,) = likelihood(PROMPT[None], [TEXTS])
    _, together = likelihood(np.stack([other, PROMPT]), [TEXTS[::-1], TEXTS])
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "texts", "said"),
    [
        (PROMPT[:2], TEXTS, "go on"),
        (PROMPT[::-1], TEXTS, "begin as all do"),
        (PROMPT, [np.array([], int)], "at least one token"),
    ],
)
def test_what_cannot_be_meant_is_refused(prompt, texts, said):
    with pytest.raises(UsageError, match=said):
        Likelihood(tiny(), PROMPT[:2])(prompt[None], [texts])


def test_every_prompt_has_as_many_texts():
    with pytest.raises(UsageError, match="as many texts"):
        Likelihood(tiny(), PROMPT[:2])(np.stack([PROMPT, PROMPT]), [TEXTS, TEXTS[:2]])


def test_a_start_has_a_token():
    with pytest.raises(UsageError, match="at least one"):
        Likelihood(tiny(), PROMPT[:0])
