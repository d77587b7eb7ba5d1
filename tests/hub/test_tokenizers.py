"""Claims about the files of a tokenizer: two layouts, one tokenizer; and damage is one sentence."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from tokens import SPECIAL, TEXTS, gguf_metadata, smollm2, write_tokenizer

from minilora.hub.gguf.reader import GgufFile
from minilora.hub.gguf.tokenizer import tokenizer_in
from minilora.hub.tokenizers import load_tokenizer, save_tokenizer
from minilora.system.errors import UsageError
from minilora.tokens.tokenizer import Tokenizer

CHAT = [{"role": "user", "content": "What is <|im_end|>?"}]


def from_gguf(**changes) -> Tokenizer:
    return tokenizer_in(GgufFile(Path("model.gguf"), gguf_metadata(**changes), {}))


def byte_pairs(word: str, merges: list[str]) -> list[str]:
    """Byte pair encoding as it is defined: the pair that was learned first is merged first."""
    rank = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    parts = list(word)
    while pairs := [p for p in pairwise(parts) if p in rank]:
        first, i = min(pairs, key=rank.get), 0
        while i < len(parts) - 1:
            if (parts[i], parts[i + 1]) == first:
                parts[i : i + 2] = ["".join(first)]
            i += 1
    return parts


def same(one: Tokenizer, other: Tokenizer) -> bool:
    assert (one.eos_ids, one.names, one.chat_template) == (
        other.eos_ids,
        other.names,
        other.chat_template,
    )
    return all(
        one.encode(text, special=special).tolist() == other.encode(text, special=special).tolist()
        for text in TEXTS
        for special in (True, False)
    )


def test_a_folder_and_a_gguf_file_of_one_tokenizer_are_the_same(tmp_path):
    folder = load_tokenizer(write_tokenizer(tmp_path))
    assert folder.eos_ids == (2,) and folder.names["unk_token"] == SPECIAL[0]
    assert same(folder, from_gguf())


def test_what_is_saved_loads_as_the_same_tokenizer(tmp_path):
    for rule in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        tokenizer = from_gguf(pre=rule, eot_token_id=0)
        save_tokenizer(tokenizer, tmp_path / rule)
        assert tokenizer.eos_ids == (0, 2)
        assert same(load_tokenizer(tmp_path / rule), tokenizer)


ELSEWHERE = [  # a file beside tokenizer.json, and what it says of special tokens
    (
        "tokenizer_config.json",
        dict(added_tokens_decoder={"99": dict(content="<x>")}),
        "'<x>', .* no",
    ),
    (
        "tokenizer_config.json",
        dict(added_tokens_decoder={"7": dict(content=SPECIAL[1])}),
        "token 1,",
    ),
    (
        "tokenizer_config.json",
        dict(added_tokens_decoder={"-": dict(content="<x>")}),
        "'-' is no id",
    ),
    ("tokenizer_config.json", dict(additional_special_tokens=["<x>"]), "'<x>', which is no token"),
    (
        "tokenizer_config.json",
        dict(eos_token="<x>"),
        "'<x>', which is no token of its tokenizer.json",
    ),
    ("special_tokens_map.json", dict(pad_token=dict(content="<x>")), "'<x>', which is no token of"),
    (
        "added_tokens.json",
        {"<x>": 99},
        "'<x>', which is no token of its tokenizer.json; load the to",
    ),
    ("added_tokens.json", {SPECIAL[1]: 7}, "which is token 1, not 7, of its tokenizer.json; load"),
]


@pytest.mark.parametrize(("file", "said", "sentence"), ELSEWHERE)
def test_a_token_that_only_another_file_has_is_refused(file, said, sentence, tmp_path):
    folder = write_tokenizer(tmp_path)
    path = folder / file
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | said))
    with pytest.raises(UsageError, match=f"{re.escape(str(folder))}.*{sentence}"):
        load_tokenizer(folder)


def test_a_token_that_another_file_has_too_is_the_same(tmp_path):
    folder = write_tokenizer(tmp_path)
    known = load_tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps({SPECIAL[1]: 1}))
    path = folder / "tokenizer_config.json"
    said = dict(
        additional_special_tokens=SPECIAL, added_tokens_decoder={"0": dict(content=SPECIAL[0])}
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    assert same(load_tokenizer(folder), known)


@pytest.mark.parametrize("rule", ["gpt-2", "smollm"])
def test_the_pieces_are_those_of_byte_pair_encoding_by_hand(rule):
    tokenizer, data = from_gguf(pre=rule), gguf_metadata()
    tokens = data["tokenizer.ggml.tokens"]
    digits = r" ?[0-9]+" if rule == "gpt-2" else "[0-9]"
    word = rf"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+|{digits}| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
    for text in [t for t in TEXTS if t.isascii() and not re.search(r"[\x00-\x1f]| [0-9]", t)]:
        spelled = [w.replace(" ", "Ġ") for w in re.findall(word, text)]
        expected = [part for w in spelled for part in byte_pairs(w, data["tokenizer.ggml.merges"])]
        assert [tokens[i] for i in tokenizer.encode(text)] == expected, text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("gpt-2", ["DON", "'", "T", "Ġpay", "Ġ1234567", "!\\n", "ĉ", "x"]),
        ("smollm", ["DON", "'", "T", "Ġpay", "Ġ", *"1234567", "!\\n", "ĉ", "x"]),
        ("llama-bpe", ["DON", "'T", "Ġpay", "Ġ", "123", "456", "7", "!Ċ", "ĉx"]),
        ("qwen2", ["DON", "'T", "Ġpay", "Ġ", *"1234567", "!Ċ", "ĉx"]),
    ],
)
def test_each_rule_cuts_words_its_own_way(rule, words):
    cut = from_gguf(pre=rule).backend.pre_tokenizer.pre_tokenize_str("DON'T pay 1234567!\n\tx")
    assert "|".join(word for word, _ in cut) == "|".join(words).replace("!\\n", "!|Ċ")


def test_what_a_model_expects_before_a_text_comes_where_it_is_asked_for():
    assert from_gguf().encode("a", start=True).tolist() == from_gguf().encode("a").tolist()
    for changes in (dict(pre="llama-bpe"), dict(add_bos_token=True)):
        tokenizer = from_gguf(**changes)
        assert tokenizer.encode("a", start=True).tolist() == [1, *tokenizer.encode("a").tolist()]
    never = from_gguf(pre="llama-bpe", add_bos_token=False)
    assert never.encode("a", start=True).tolist() == never.encode("a").tolist()


def test_tokens_that_a_user_may_type_are_no_special_ones():
    kinds = gguf_metadata()["tokenizer.ggml.token_type"]
    kinds[300] = 4
    token = gguf_metadata()["tokenizer.ggml.tokens"][300]
    assert token not in from_gguf(token_type=kinds).special_ids


@pytest.mark.parametrize(
    ("files", "eos"),
    [
        ({}, (2,)),
        ({"config.json": {"eos_token_id": 1}}, (1,)),
        ({"config.json": {"eos_token_id": 1}, "generation_config.json": {}}, (1,)),
        ({"config.json": {"eos_token_id": 1}, "generation_config.json": {"eos_token_id": 0}}, (0,)),
        ({"generation_config.json": {"eos_token_id": [2, 0]}}, (0, 2)),
        ({"tokenizer_config.json": {"eos_token": {"content": "<|im_start|>"}}}, (1,)),
        ({"tokenizer_config.json": {}}, ()),
        (
            {"tokenizer_config.json": {}, "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
            (2,),
        ),
    ],
)
def test_an_answer_ends_with_what_the_files_say(tmp_path, files, eos):
    write_tokenizer(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert load_tokenizer(tmp_path).eos_ids == eos


@pytest.mark.parametrize(
    "template", ["T", [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "T"}]]
)
def test_a_chat_template_may_stand_in_the_tokenizer_s_configuration(tmp_path, template):
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert load_tokenizer(tmp_path).chat_template == "T"


MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
SHELL = {"version": "1.0", "added_tokens": [], "model": MODEL}


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"3", b"\xff\xfe\x00", b'{"model": ' + b"[" * 100_000,
    b'{"a":' * 100_000, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    b"<!doctype html><title>not found</title>",
    *[json.dumps(SHELL | change).encode() for change in (
        {"model": None}, {"model": []}, {"model": 3}, {"version": "99"}, {"added_tokens": 3},
        {"added_tokens": [{"id": "x"}]}, {"added_tokens": [{"content": "a"}]},
        {"model": MODEL | {"type": "Evil"}}, {"model": MODEL | {"vocab": ["a"]}},
        {"model": MODEL | {"vocab": {"a": -1}}}, {"model": MODEL | {"vocab": {"a": "x"}}},
        {"model": MODEL | {"vocab": {"a": 2**40}}}, {"model": MODEL | {"merges": [["a", "zz"]]}},
        {"model": MODEL | {"merges": [["b", "a"]]}}, {"model": MODEL | {"merges": ["a"]}},
        {"model": MODEL | {"merges": [["a"]]}}, {"model": MODEL | {"merges": 3}},
        {"pre_tokenizer": {"type": "Evil"}}, {"pre_tokenizer": "x"}, {"decoder": {"type": "Evil"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "((("}, "behavior": "Isolated",
                           "invert": False}},
    )],
])  # fmt: skip
def test_a_damaged_tokenizer_is_one_sentence_that_names_the_file(tmp_path, content):
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"tokenizer\.json (is|must be|holds NUL) "):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer_config.json", b"[]", "tokenizer_config.json must be an object"),
        (
            "tokenizer_config.json",
            b'{"chat_template": 3}',
            "must be a text or a list or null",
        ),
        (
            "tokenizer_config.json",
            b'{"chat_template": [3]}',
            r"template\[0\] must be an object",
        ),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}', "lacks template"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "x", "template": ""}]}', None),
        ("tokenizer_config.json", b'{"eos_token": 3}', "config.json: eos_token must be a text"),
        ("tokenizer_config.json", b'{"bos_token": {"content": []}}', "bos_token.content must be a"),
        ("generation_config.json", b'{"eos_token_id": "2"}', "eos_token_id must be a whole number"),
        (
            "generation_config.json",
            b'{"eos_token_id": [true]}',
            r"token_id\[0\] must be a whole",
        ),
        ("generation_config.json", b'{"eos_token_id": -1}', "eos_token_id must be a whole number"),
        (
            "generation_config.json",
            b'{"eos_token_id": 99999}',
            "token_id is 99999, which is no",
        ),
        (
            "generation_config.json",
            b'{"eos_token_id": 1%s}' % (b"0" * 300),
            "to 2,147,483,647 or .* got 1000",
        ),
        ("chat_template.jinja", b"\xff", "chat_template.jinja is not UTF-8"),
    ],
)
def test_a_damaged_file_beside_it_is_one_sentence(tmp_path, name, content, sentence):
    write_tokenizer(tmp_path)
    if name != "chat_template.jinja":
        (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / name).write_bytes(content)
    if sentence is None:
        assert load_tokenizer(tmp_path).chat_template is None
        return
    with pytest.raises(UsageError, match=sentence):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(model="llama"), "is 'llama'; only byte pair encoding"),
        (dict(model=None), "is None; only byte pair encoding"),
        (dict(pre="tekken"), "as 'tekken'; only gpt-2, smollm, llama-bpe, qwen2 are known"),
        (dict(pre=["gpt-2"]), r"as \['gpt-2'\]; only"),
        (dict(tokens=None), "tokens is no list of str"),
        (dict(tokens=[1, 2]), "tokens is no list of str"),
        (dict(tokens=["a"] * 360), "has a token twice"),
        (dict(token_type=[1]), "one without a type"),
        (dict(token_type="x"), "token_type is no list of int"),
        (dict(merges=["a zz"]), "is damaged, or no tokenizer .*zz"),
        (dict(merges=["ab"]), "damaged"),
        (dict(merges=["a b c"]), "damaged"),
        (dict(merges=[3]), "merges is no list of str"),
        (dict(eos_token_id=360), "eos_token_id is 360, of 360 tokens"),
        (dict(eot_token_id="x"), "eot_token_id is 'x'"),
        (dict(bos_token_id=-1), "bos_token_id is -1"),
    ],
)
def test_damage_in_a_gguf_file_is_one_sentence_that_names_it(changes, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        from_gguf(**changes)
    assert "model.gguf" in str(caught.value)


def test_what_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="models known by name"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(
        FileNotFoundError, match=r"has no tokenizer\.json; load the model's tokenizer"
    ):
        load_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="docs-tiny reads the symbols of ALPHABET"):
        load_tokenizer("docs-tiny")


def test_the_real_model_s_tokenizer(tmp_path):
    tokenizer = load_tokenizer(smollm2())
    assert tokenizer.vocab_size == 49152 and tokenizer.eos_ids == (2,)
    assert tokenizer.decode(tokenizer.encode("1234"), special=True) == "1234"
    assert len(tokenizer.encode("1234")) == 4  # by the file's rule; without it there is one piece
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_chat(CHAT)[:3].tolist() == [1, 9690, 198]
    save_tokenizer(tokenizer, tmp_path)
    assert same(load_tokenizer(tmp_path), tokenizer)
