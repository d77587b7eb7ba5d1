"""Claims about tokenizers and chats beside transformers: the same ids, the same texts.

Of the real SmolLM2, whose GGUF file is read on both sides, transformers passes over the rule that
cuts off single digits; where a text has none, both agree.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import re

import numpy as np
import pytest
from chats import CHAT, TEMPLATES
from tokens import TEXTS, gguf_metadata, smollm2, write_chat_model, write_tokenizer

from minilora import functional as F
from minilora.hub import load_model
from minilora.hub.gguf.reader import GgufFile
from minilora.hub.gguf.tokenizer import tokenizer_in
from minilora.hub.tokenizers import load_tokenizer, save_tokenizer
from minilora.text.pairs import padded, pair_example
from minilora.tokens.tokenizer import Tokenizer
from minilora.training.quality import answer_loss

transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def real():
    """SmolLM2's tokenizer as both read it."""
    file = smollm2()
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return load_tokenizer(file), theirs


def test_a_folder_gives_the_ids_that_transformers_gives(tmp_path):
    ours = load_tokenizer(write_tokenizer(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text, special=True).tolist() == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text))
    assert ours.names == {k: str(v) for k, v in theirs.special_tokens_map.items()}


def test_what_is_saved_here_transformers_reads(tmp_path):
    ours = tokenizer_in(GgufFile(tmp_path / "m.gguf", gguf_metadata(pre="smollm"), {}))
    save_tokenizer(ours, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text, special=True).tolist() == theirs.encode(text)
    assert theirs.apply_chat_template(CHAT, tokenize=False) == ours.apply_chat_template(CHAT, False)
    assert (
        tuple(transformers.GenerationConfig.from_pretrained(tmp_path).eos_token_id) == ours.eos_ids
    )


def test_the_gguf_file_gives_the_same_ids_where_a_text_has_no_digits(real):
    ours, theirs = real
    differ = [t for t in TEXTS if ours.encode(t, special=True).tolist() != theirs.encode(t)]
    assert all(re.search(r"\d|[²½Ⅷ]", text) for text in differ)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_a_chat_is_the_text_that_transformers_writes(tmp_path, name, add_generation_prompt):
    ours = load_tokenizer(write_tokenizer(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with_template = Tokenizer(ours.backend, names=ours.names, chat_template=TEMPLATES[name])
    for n in range(1, len(CHAT) + 1):
        expected = theirs.apply_chat_template(
            CHAT[:n],
            chat_template=TEMPLATES[name],
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
        assert with_template.apply_chat_template(CHAT[:n], add_generation_prompt) == expected


def test_the_real_model_s_chats_are_those_of_transformers(real):
    ours, theirs = real
    for messages in (CHAT, CHAT[1:], CHAT[:2]):
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert ours.apply_chat_template(messages) == expected
        assert ours.encode_chat(messages).tolist() == theirs.encode(expected)


GENERATION = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    "answers",
    [["A low-rank change."], ["  Yes. 😀", "No,\nit is not."], ["def f():\n    return 1\n"]],
)
def test_what_counts_as_an_answer_is_what_a_template_for_training_marks(tmp_path, answers):
    ours = load_tokenizer(write_tokenizer(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "system", "content": "Be brief."}]
    for said in answers:
        chat += [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": said}]
    marked = theirs.apply_chat_template(
        chat, chat_template=GENERATION, return_dict=True, return_assistant_tokens_mask=True
    )
    tokenizer = Tokenizer(ours.backend, eos_ids=ours.eos_ids, chat_template=GENERATION)
    ids, said = tokenizer.encode_answers(chat)
    n = len(ids)
    assert ids.tolist() == marked["input_ids"][:n] and not any(marked["assistant_masks"][n:])
    assert said.astype(int).tolist() == marked["assistant_masks"][:n]


def test_the_loss_of_a_batch_is_that_of_transformers(tmp_path):
    import torch

    write_chat_model(tmp_path)
    ours = load_tokenizer(tmp_path)
    chats = [
        [{"role": "user", "content": "a" * n}, {"role": "assistant", "content": "LoRA " * n}]
        for n in (1, 7, 20)
    ]
    examples = [pair_example(ours, chat) for chat in chats]
    ids, targets = padded(examples)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    labels = np.pad(targets, ((0, 0), (1, 0)), constant_values=-100)  # theirs stand under the ids
    whole = torch.tensor(np.pad(ids, ((0, 0), (0, 1))))
    with torch.no_grad():
        expected = theirs(whole, labels=torch.tensor(labels)).loss.item()
    model = load_model(tmp_path)
    assert F.cross_entropy(model(ids), targets).item() == pytest.approx(expected, abs=2e-5)
    assert answer_loss(model, examples) == pytest.approx(expected, abs=2e-5)
