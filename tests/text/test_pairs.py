"""Claims about questions and answers: the loss counts on answers, bad lines are named, and batches
of unequal lengths train as their rows would by themselves."""

import json

import numpy as np
import pytest
from builders import tiny
from chats import CHATML, LLAMA
from tokens import write_tokenizer

from minilora import functional as F
from minilora.hub.tokenizers import load_tokenizer
from minilora.system.errors import UsageError
from minilora.tensor import grad
from minilora.text.pairs import Pairs, padded, pair_batches, pair_example, read_pairs
from minilora.text.windows import IGNORE_INDEX
from minilora.tokens.tokenizer import Tokenizer
from minilora.training.quality import answer_loss


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def counted(tokenizer, example) -> str:
    """What the loss counts on."""
    targets = example[1]
    return tokenizer.decode(targets[targets != IGNORE_INDEX], special=True)


def write_lines(path, *entries):
    path.write_text("\n".join(json.dumps(e) if not isinstance(e, str) else e for e in entries))
    return path


def test_the_loss_counts_on_the_answer_and_its_end(tokenizer):
    chat = [user("What is LoRA?"), assistant("A low-rank change.")]
    ids, targets = pair_example(tokenizer, chat)
    assert counted(tokenizer, (ids, targets)) == "A low-rank change.<|im_end|>"
    whole = tokenizer.encode_chat(chat, add_generation_prompt=False)
    assert whole[: len(ids)].tolist() == ids.tolist()
    said = targets != IGNORE_INDEX
    assert (targets[said] == whole[1 : 1 + len(ids)][said]).all()


def test_what_stands_before_an_answer_is_what_generation_begins_with(tokenizer):
    chat = [user("Why?"), assistant("  \nBecause.")]
    ids, targets = pair_example(tokenizer, chat)
    prompt = tokenizer.encode_chat(chat[:1])
    first = int(np.flatnonzero(targets != IGNORE_INDEX)[0])
    assert ids[: first + 1].tolist() == prompt.tolist()


def test_an_answer_begins_as_in_the_whole_text_where_a_text_by_itself_begins_otherwise():
    """As in Llama 2: ▁ is a space, which a text by itself begins with, and an answer does not."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    pieces = [("<unk>", 0.0)] + [(c, -2.0) for c in "▁:abcdefgh"] + [("▁a", -1.0)]
    backend = Library(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["</s>"])
    template = "{% for m in messages %}{{ m.content }}:{% if loop.index is even %}</s>{% endif %}"
    tokenizer = Tokenizer(
        backend,
        eos_ids=[backend.token_to_id("</s>")],
        chat_template=template + "{% endfor %}",
    )
    ids, targets = pair_example(tokenizer, [user("a"), assistant("b"), user("c"), assistant("a")])
    words = [backend.id_to_token(int(i)) for i in [*ids, targets[-1]]]
    assert words == ["▁a", ":", "b", ":", "</s>", "▁", "c", ":", "a", ":", "</s>"]
    said = [backend.id_to_token(int(i)) for i in targets if i != IGNORE_INDEX]
    assert said == ["b", ":", "</s>", "a", ":", "</s>"]


@pytest.mark.parametrize("template", [CHATML, LLAMA])
def test_of_a_longer_chat_every_answer_counts_and_nothing_else(tokenizer, template):
    end = {CHATML: "<|im_end|>", LLAMA: "<|im_end|>"}[template]
    tokenizer = Tokenizer(
        tokenizer.backend, eos_ids=(2,), names=tokenizer.names, chat_template=template
    )
    turns = [user("a"), assistant("b"), user("c"), assistant("d <|im_end|>"), user("e")]
    said = counted(tokenizer, pair_example(tokenizer, turns)).replace(" ", "")
    assert said == f"b{end}d<|im_end|>{end}"


def test_an_end_that_a_user_types_ends_nothing(tokenizer):
    ids, _ = pair_example(tokenizer, [user("a<|im_end|>"), assistant("b<|im_end|>c")])
    assert (ids == tokenizer.special_ids["<|im_end|>"]).sum() == 1  # the last one is only a target


def test_of_a_long_chat_the_beginning_is_kept(tokenizer):
    chat = [user("a"), assistant("b " * 100)]
    ids, targets = pair_example(tokenizer, chat, 40)
    assert len(ids) == len(targets) == 40
    with pytest.raises(UsageError, match="no answer within its first 10 tokens; shorten"):
        pair_example(tokenizer, chat, 10)


def test_a_template_that_writes_history_anew_is_refused(tokenizer):
    forgetful = Tokenizer(tokenizer.backend, chat_template="{{ messages[-1].content }}")
    with pytest.raises(UsageError, match="learn from chats of one question"):
        pair_example(forgetful, [user("a"), assistant("b")])


@pytest.mark.parametrize(
    ("entry", "names", "chat"),
    [
        ({"question": "q", "answer": "a", "id": 3}, "question, answer", ("q", "a")),
        ({"prompt": "q", "completion": "a"}, "prompt, completion", ("q", "a")),
        ({"instruction": "q", "output": "a"}, "instruction, output", ("q", "a")),
        ({"instruction": "q", "input": "", "output": "a"}, "instruction, output", ("q", "a")),
        ({"instruction": "q", "input": "i", "output": "a"}, "instruction, output", ("q\n\ni", "a")),
        ({"messages": [user("q"), assistant("a") | {"name": None}]}, "messages", ("q", "a")),
    ],
)
def test_the_names_that_people_have_are_read(tmp_path, entry, names, chat):
    pairs = read_pairs(write_lines(tmp_path / "p.jsonl", "\ufeff" + json.dumps(entry), "", entry))
    assert pairs == Pairs("p.jsonl", [[user(chat[0]), assistant(chat[1])]] * 2, [1, 3], names)


GOOD = {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", r" is damaged \(.*; write one JSON object on each line"),
        ("[" * 100_000, r" is damaged \(.* deep\); write one JSON object on each line"),
        ('{"question": "q", "answer": "a", "answer": "b"}', r" is damaged \(it has 'answer' twice"),
        ('[{"question": "q"}]', " must be an object, got a list of 1"),
        ('"q"', " must be an object, got 'q'"),
        ({}, 'it has nothing; it needs "question" and "answer"'),
        (
            {"q": 1, "a": 2},
            'it has "q", "a"; it needs .* "instruction" and "output", or "messages"',
        ),
        ({"question": "q"}, 'it has "question"; it needs'),
        ({"question": "q", "answer": " "}, "\"answer\" must be a text that is not empty, got ' '"),
        ({"question": ["q"], "answer": "a"}, '"question" must be a text'),
        ({"question": "q", "answer": None}, '"answer" must be a text'),
        ({"instruction": "q", "input": 3, "output": "a"}, '"input" must be a text'),
        ({"messages": []}, "no message has the role assistant"),
        ({"messages": [user("q")]}, "no message has the role assistant"),
        ({"messages": "q"}, "messages must be a list"),
        ({"messages": [{"role": "assistant"}]}, "message 0 must be"),
        ({"messages": [assistant([{"type": "text"}])]}, "message 0 must be"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, sentence):
    file = write_lines(tmp_path / "p.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(UsageError, match=r"p\.jsonl, line 3:? ?" + sentence):
        read_pairs(file)


def test_an_empty_file_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="is empty; write one JSON object on each line"):
        read_pairs(write_lines(tmp_path / "p.jsonl", "", " "))


def pairs_of(*chats):
    return Pairs("p.jsonl", list(chats), [*range(len(chats))], "messages")


def test_held_out_chats_share_no_answer_with_those_that_are_learned():
    chats = [[user(f"{way} {i}"), assistant(f"answer {i}")] for i in range(40) for way in "abc"]
    held = pairs_of(*chats).held_out()
    answers = {chat[1]["content"] for chat, out in zip(chats, held, strict=True) if out}
    assert len(held) == 120 and sum(held) == 12 and len(answers) == 4
    assert held == [chat[1]["content"] in answers for chat in chats]
    assert pairs_of(*chats[::-1]).held_out() == held[::-1]


def test_of_few_chats_none_is_held_out():
    assert not any(pairs_of(*[[user("q"), assistant(f"a{i}")] for i in range(9)]).held_out())
    assert not any(pairs_of(*[[user(f"q{i}"), assistant("a")] for i in range(20)]).held_out())


def examples_of(*lengths):
    rng = np.random.default_rng(0)
    made = []
    for n in lengths:
        ids = rng.integers(11, size=n)
        targets = np.where(np.arange(n) < n // 2, IGNORE_INDEX, rng.integers(11, size=n))
        made.append((ids, targets))
    return made


def test_what_fills_a_row_up_changes_neither_loss_nor_gradient():
    model, examples = tiny("llama"), examples_of(3, 9, 17, 5)
    params = model.parameters()
    ids, targets = padded(examples)
    assert ids.shape == (4, 17) and (targets != IGNORE_INDEX).sum() == 2 + 5 + 9 + 3
    loss = F.cross_entropy(model(ids), targets)
    total, gradients = 0.0, [np.zeros(p.shape) for p in params]
    for one_ids, one_targets in examples:
        n = (one_targets != IGNORE_INDEX).sum()
        one = F.cross_entropy(model(one_ids[None]), one_targets[None])
        total += one.item() * n / 19
        for summed, g in zip(gradients, grad(one, params), strict=True):
            summed += g * (n / 19)
    assert loss.item() == pytest.approx(total, rel=1e-6)
    for g, summed in zip(grad(loss, params), gradients, strict=True):
        np.testing.assert_allclose(g, summed, atol=1e-6)
    assert answer_loss(model, examples) == pytest.approx(total, rel=1e-6)


def test_a_batch_depends_on_the_generator_alone_and_wastes_little():
    examples = examples_of(*range(3, 103))
    draw = pair_batches(examples, 4)
    for seed in range(20):
        ids, targets = draw(np.random.default_rng(seed))
        again = draw(np.random.default_rng(seed))
        assert (ids == again[0]).all() and (targets == again[1]).all()
    filled = [draw(np.random.default_rng(seed)) for seed in range(100)]
    used = sum((targets != IGNORE_INDEX).sum() for _, targets in filled)
    assert used / sum(targets.size for _, targets in filled) > 0.45  # of at most 0.5


def test_every_chat_is_drawn_equally_often():
    examples = [(np.full(n, n), np.full(n, n)) for n in range(1, 11)]
    draw = pair_batches(examples, 2)
    drawn = np.concatenate([draw(np.random.default_rng(i))[0][:, 0] for i in range(3000)])
    counts = np.bincount(drawn, minlength=11)[1:]
    assert counts.min() > 500 and counts.max() < 700


def test_fewer_chats_than_a_batch_are_a_batch():
    ids, _ = pair_batches(examples_of(3, 5), 4)(np.random.default_rng(0))
    assert ids.shape == (2, 5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pair_batches([], 4), "no examples to learn from"),
        (lambda: pair_batches(examples_of(3), 0), "batch_size must be a whole number"),
        (lambda: answer_loss(tiny(), []), "no examples to judge"),
    ],
)
def test_wrong_use_is_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
