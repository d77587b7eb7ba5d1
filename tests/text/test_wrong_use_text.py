"""Claims about wrong use of texts, windows, tasks and generation: one sentence answers it."""

import math

import numpy as np
import pytest
from builders import tiny

from minilora.generation.sampling import generate, write
from minilora.system.errors import UsageError
from minilora.text.alphabet import decode, dropped, encode, to_alphabet
from minilora.text.corpora import Corpus, load_corpus, load_text
from minilora.text.string_tasks import string_batch, string_examples
from minilora.text.windows import random_windows, spaced_windows

TOKENS = np.arange(50) % 11


def rng():
    return np.random.default_rng(0)


def corpus():
    return Corpus("own", TOKENS, TOKENS[:10], TOKENS[:3])


def drawn(prompt=(1, 2), new=3, **options):
    return generate(tiny(), prompt, new, **{"rng": rng()} | options)


def broken(value):
    model = tiny()
    model.norm.weight.data[0] = value
    return model


def written(prompt="ab", length=3, **options):
    return write(tiny(vocab_size=96), prompt, length, **options)


NO_TEXT = [
    (lambda: encode(b"ab"), "a text must be a str, got bytes"),
    (lambda: encode(None), "a text must be a str, got NoneType"),
    (lambda: to_alphabet(["a"]), "must be a str, got list"),
    (lambda: dropped(None), "must be a str, got NoneType"),
    (lambda: load_text(None), "NoneType"),
    (lambda: written(None), "must be a str, got NoneType"),
]
REFUSED = [
    # texts
    (lambda: encode("a\ud800"), r"U\+D800\) at position 1"),
    (lambda: decode([1.0, 2.0]), r"integers of shape \(n,\), got float"),
    (lambda: decode(np.ones(96, bool)), "integers .* got bool"),
    (lambda: decode([[1, 2], [3, 4]]), r"got int64 \(2, 2\)"),
    (lambda: decode(5), r"got int64 \(\)"),
    (lambda: decode("ab"), "integers of shape"),
    (lambda: decode(i for i in [1]), "got object"),
    (lambda: load_corpus(None), "there is no corpus None"),
    # windows
    (lambda: corpus().batches(2, 4, "dev"), "no split 'dev'; use one of"),
    (lambda: corpus().batches(2, 4, "test"), "takes 5 symbols .* only 3"),
    (lambda: corpus().batches(2.0, 4), "batch_size must be a whole"),
    (lambda: corpus().batches(True, 4), "batch_size .* got True"),
    (lambda: corpus().batches(0, 4), "batch_size .* got 0"),
    (lambda: corpus().batches(2, -4), "block_size .* got -4"),
    (lambda: corpus().batches(2, math.nan), "block_size .* got nan"),
    (lambda: corpus().batches(2, 4)(None), "default_rng.*got None"),
    (lambda: corpus().batches(2, 4)(3), "default_rng.*got 3"),
    (lambda: random_windows(TOKENS, 0, 4, rng()), "batch_size .* got 0"),
    (lambda: random_windows(None, 2, 4, rng()), "tokens must be whole"),
    (lambda: random_windows("abc", 2, 1, rng()), "encode.. makes them"),
    (lambda: random_windows(TOKENS * 1.0, 2, 4, rng()), "got float64"),
    (lambda: spaced_windows(TOKENS.reshape(5, 10), 2, 4), r"\(n,\), got int64 \(5, 10\)"),
    (lambda: spaced_windows([], 1, 4), "tokens must be whole"),
    (lambda: spaced_windows(TOKENS, 0, 4), "count must .* got 0"),
    (lambda: spaced_windows(TOKENS, 0.5, 4), "count must .* got 0.5"),
    # string tasks
    (lambda: string_batch("copy", ["ant"], 2, 28, rng()), "tasks='copy'"),
    (lambda: string_batch(["copy"], "ant", 2, 28, rng()), "list of words"),
    (lambda: string_batch(["copy"], ["ant"], 0, 28, rng()), "got 0"),
    (lambda: string_examples(["copy"], ["ant"], 28.0, rng()), "block_size .* got 28.0"),
    (lambda: string_examples(["copy"], ["ant"], 28, 0), "rng must be"),
    # generation
    (lambda: drawn([math.nan]), "prompt_ids must be integers"),
    (lambda: drawn([1.0, 2.0]), "prompt_ids must be integers .* float64"),
    (lambda: drawn([True]), "prompt_ids must be integers .* bool"),
    (lambda: drawn("ab"), "encode.. makes them of a text"),
    (lambda: drawn([[[1]]]), r"shape \(B, T\), got int64 \(1, 1, 1\)"),
    (lambda: drawn(None), "prompt_ids must be integers"),
    (lambda: drawn(new=2.5), "max_new_tokens must be a whole"),
    (lambda: drawn(new=-1), "max_new_tokens must be .* got -1"),
    (lambda: drawn(new=None), "max_new_tokens must be .* got None"),
    (lambda: drawn(temperature=math.nan), "temperature .* got nan"),
    (lambda: drawn(temperature=math.inf), "temperature .* got inf"),
    (lambda: drawn(temperature=1e-320), "from 1e-06 on, got 1e-320"),
    (lambda: drawn(temperature=None), "temperature .* got None"),
    (lambda: drawn(temperature="hot"), "temperature .* got 'hot'"),
    (lambda: drawn(top_p="all"), "top_p must lie in .* got 'all'"),
    (lambda: drawn(top_k=1.5), "top_k must be a whole .* got 1.5"),
    (lambda: drawn(top_k=True), "top_k must be a whole .* got True"),
    (lambda: drawn(top_p=math.nan), "top_p must lie in"),
    (lambda: drawn(rng=0), "sampling needs rng=.*got rng=0"),
    (lambda: drawn(on_token="print"), "on_token must be a function"),
    (lambda: drawn(eos_token_id=11), "eos_token_id=11 is not in"),
    (lambda: drawn(eos_token_id=1.0), "eos_token_id must be a whole"),
    (lambda: generate(broken(math.nan), [1], 3, rng=rng()), "NaN or inf"),
    (lambda: generate(broken(math.nan), [1], 3, temperature=0), "NaN"),
    (lambda: generate(broken(math.inf), [1], 3, temperature=0), "infinite"),
    (lambda: written(""), "the prompt is empty"),
    (lambda: written("мир"), "the prompt has 'мир', which"),
    (lambda: written(stop="ab"), "stop must be one symbol .* got 'ab'"),
    (lambda: written(stop=""), "stop must be one symbol"),
    (lambda: written(stop=0), "stop must be one symbol .* got 0"),
    (lambda: written(on_text="print"), "on_text must be a function"),
    (lambda: written(length=-1), "length must be a whole number of at least 0, got -1"),
    (lambda: written(seed=-1), "seed must be a whole number of at least 0, got -1"),
    (lambda: written(seed=None), "seed must be .* got None"),
    (lambda: write("docs-tiny", "ab", 3), r"takes a model: load_model\('docs-tiny'\)"),
    (lambda: write(tiny(), "ab", 3), "this model has 11; pass its tokenizer"),
]


@pytest.mark.parametrize(("call", "sentence"), NO_TEXT)
def test_what_is_no_text_is_a_type_error(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()


@pytest.mark.parametrize(("call", "sentence"), REFUSED)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_wrong_use_is_answered_in_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_numpy_integers_lists_and_any_integer_type_are_as_good():
    ids, targets = random_windows(TOKENS, 2, 4, rng())
    for same in (TOKENS.tolist(), TOKENS.astype(np.uint8), TOKENS[::1].astype(">i4")):
        again = random_windows(same, np.int64(2), np.uint8(4), rng())
        np.testing.assert_array_equal(again, (ids, targets))
    expected = drawn(new=4)
    assert np.array_equal(drawn(np.array([1, 2], np.uint8), np.int32(4)), expected)
    assert np.array_equal(drawn(new=4, temperature=np.float32(1), top_k=np.int64(11)), expected)
