"""The tokenizer in a GGUF file's metadata: pieces, merges, and the name of a rule.

Byte pair encoding first cuts a text into words, then each word into pieces. The file holds the
pieces, but of the cut only a name, such as "smollm"; what it means stands in llama.cpp. A name that
is not known here is refused: another cut gives other ids, and the model would read another text.
Sources: llama-vocab.cpp in llama.cpp; for the normal form of qwen2, that model's tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilora.hub.gguf.reader import GgufFile
from minilora.system.errors import UsageError, brief
from minilora.system.readers import damaged
from minilora.tokens.tokenizer import Tokenizer, library, unusable

_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The pattern of a word by the rule's name; None: that of GPT-2, which `tokenizers` knows.
_RULES = {
    "gpt-2": None,
    "smollm": None,  # once every digit has been cut off
    "llama-bpe": _WORD,
    "qwen2": _WORD.replace("{1,3}", ""),
}
_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type
_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def tokenizer_in(file: GgufFile) -> Tokenizer:
    """Raises ValueError for another tokenizer than byte pair encoding, for a rule that is not
    known, and for lists that do not fit each other; MissingExtraError without `tokenizers`."""
    data, path = file.metadata, file.path
    kind, rule = data.get("tokenizer.ggml.model"), data.get("tokenizer.ggml.pre")
    instead = "use the model's folder with its tokenizer.json"
    if kind != "gpt2":
        raise UsageError(
            f"the tokenizer in {path} is {brief(kind)}; only byte pair encoding ('gpt2') is read "
            f"from a GGUF file: {instead}"
        )
    if rule not in [*_RULES]:
        raise UsageError(
            f"the tokenizer in {path} cuts a text into words as {brief(rule)}; only "
            f"{', '.join(_RULES)} are known: {instead}"
        )
    tokens, merges = _list(file, "tokens", str), _list(file, "merges", str)
    kinds = _list(file, "token_type", int)
    if len(tokens) != len(kinds) or len(set(tokens)) < len(tokens):
        raise damaged(path, "its tokenizer has a token twice, or one without a type")
    with unusable(path):
        backend = _backend(tokens, [tuple(pair.split(" ")) for pair in merges], rule)
    AddedToken = library().AddedToken
    for text, number in zip(tokens, kinds, strict=True):
        if number in (_CONTROL, _USER_DEFINED):
            special = number == _CONTROL
            backend.add_tokens([AddedToken(text, special=special, normalized=False)])
    ids = {key: _id(data, key, tokens, file) for key in (*_NAMES, "eot")}
    names = {_NAMES[key]: tokens[i] for key, i in ids.items() if i is not None and key in _NAMES}
    if data.get("tokenizer.ggml.add_bos_token", rule == "llama-bpe") and "bos_token" in names:
        begin = names["bos_token"]
        backend.post_processor = library().processors.TemplateProcessing(
            single=[begin, "$A"], special_tokens=[(begin, ids["bos"])]
        )
    template = data.get("tokenizer.chat_template")
    return Tokenizer(
        backend,
        eos_ids=[i for i in (ids["eos"], ids["eot"]) if i is not None],
        names=names,
        chat_template=template if isinstance(template, str) else None,
        source=str(path),
    )


def _backend(tokens: list[str], merges: list[tuple[str, ...]], rule: str) -> Any:
    tokenizers = library()
    vocabulary = {text: i for i, text in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, merges, ignore_merges=rule == "llama-bpe")
    )
    cut = tokenizers.pre_tokenizers
    steps = [cut.Digits(individual_digits=True)] if rule == "smollm" else []
    if pattern := _RULES[rule]:
        steps.append(cut.Split(tokenizers.Regex(pattern), "isolated"))
    steps.append(cut.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    backend.pre_tokenizer = cut.Sequence(steps)
    backend.decoder = tokenizers.decoders.ByteLevel()
    if rule == "qwen2":
        backend.normalizer = tokenizers.normalizers.NFC()
    return backend


def _list(file: GgufFile, name: str, kind: type) -> list[Any]:
    values = file.metadata.get(f"tokenizer.ggml.{name}")
    if isinstance(values, list) and all(type(value) is kind for value in values):
        return values
    raise damaged(file.path, f"its tokenizer.ggml.{name} is no list of {kind.__name__}")


def _id(data: Mapping[str, Any], key: str, tokens: list[str], file: GgufFile) -> int | None:
    found = data.get(f"tokenizer.ggml.{key}_token_id")
    if found is None or (type(found) is int and 0 <= found < len(tokens)):
        return found
    raise damaged(file.path, f"its {key}_token_id is {brief(found)}, of {len(tokens)} tokens")
