"""A model's tokenizer, from the files that come with the model, and back into such files.

A folder of transformers has a tokenizer.json, which PyPI's `tokenizers` reads, and says in other
files which tokens are special, which of them end an answer, and how a chat is written. A GGUF file
has all of it in its metadata: see gguf/tokenizer.py.
Source: PreTrainedTokenizerFast and GenerationConfig in transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

from minilora.hub.gguf.reader import read_gguf
from minilora.hub.gguf.tokenizer import tokenizer_in
from minilora.hub.places import bundled_models, model_place
from minilora.hub.safetensors_files import MODEL_FILES
from minilora.hub.saves import read_config_file
from minilora.system.errors import UsageError, brief
from minilora.system.files import explained, usable_path, write_atomically
from minilora.system.readers import LARGEST, LARGEST_TABLE, damaged, read_json, read_text
from minilora.system.schemas import Range, shown
from minilora.text.alphabet import ALPHABET
from minilora.tokens.tokenizer import Tokenizer, library, unusable

_FILE, _ABOUT, _TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """The tokenizer of a model, by the name or path that load_model takes: a folder with a
    tokenizer.json, or a .gguf file.

    Raises FileNotFoundError for what is not there; ValueError for damaged files, for a kind of
    tokenizer that is not supported, and for a model of our own, which reads characters;
    MissingExtraError without PyPI's tokenizers.
    """
    if str(name_or_path) in bundled_models():
        raise UsageError(
            f"{name_or_path} reads the symbols of ALPHABET: use encode() and decode(), or write() "
            "without a tokenizer"
        )
    path = model_place(name_or_path)
    return tokenizer_in(read_gguf(path)) if path.is_file() else _from_folder(path)


def reads_symbols(name_or_path: str | Path) -> bool:
    """Whether a model is one of our own: it reads the symbols of ALPHABET, and has no tokenizer.
    Raises FileNotFoundError for what is not there."""
    place = model_place(name_or_path)
    if place.is_file():
        return False
    return read_config_file(place, MODEL_FILES).get("vocab_size") == len(ALPHABET)


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, generation_config.json, which says what ends an
    answer, and chat_template.jinja if there is one. transformers reads them too."""
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.names}
    texts = {
        _FILE: tokenizer.backend.to_str(),
        _ABOUT: json.dumps(about, indent=2),
        "generation_config.json": json.dumps({"eos_token_id": list(tokenizer.eos_ids)}),
    }
    if tokenizer.chat_template is not None:
        texts[_TEMPLATE] = tokenizer.chat_template
    folder = usable_path(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(Path(folder, name), partial(Path.write_bytes, data=text.encode()))


def _from_folder(folder: Path) -> Tokenizer:
    file = folder / _FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_FILE}; load the model's tokenizer in transformers, save it with "
            "save_pretrained, and put it there"
        )
    tokenizers = library()
    read_json(file, largest=LARGEST_TABLE)  # says how a file is damaged, or that it is none
    with unusable(file):
        backend = tokenizers.Tokenizer.from_file(str(file))
    about = _optional(folder / _ABOUT, _About)
    special = _optional(folder / "special_tokens_map.json", _About) | about
    names = {name: _content(special.get(name)) for name in _NAMES}
    names = {name: text for name, text in names.items() if text}
    _require_tokens(backend, folder, names, special)
    return Tokenizer(
        backend,
        eos_ids=_eos_ids(folder, backend) or _id_of(backend, names.get("eos_token")),
        names=names,
        chat_template=_template(folder, about),
        source=str(folder),
    )


def _require_tokens(
    backend: Any, folder: Path, names: Mapping[str, str], special: Mapping[str, Any]
) -> None:
    """Raise ValueError if other files add tokens that tokenizer.json lacks, or has otherwise: from
    these files transformers makes tokens of their own, so that a text has other ids."""
    added = _optional(folder / "added_tokens.json", dict[str, _Id])
    for i, one in (special.get("added_tokens_decoder") or {}).items():
        if not re.fullmatch(r"\d{1,9}", i, re.ASCII):
            raise damaged(folder / _ABOUT, f"in added_tokens_decoder {shown(i)} is no id")
        added[one["content"]] = int(i)
    others = [_content(token) for token in special.get("additional_special_tokens") or ()]
    found = {text: backend.token_to_id(text) for text in [*added, *names.values(), *others]}
    for text, i in found.items():
        if i is None or i != added.get(text, i):
            where = "no token" if i is None else f"token {i}, not {added[text]},"
            raise UsageError(
                f"{folder} has the special token {brief(text)}, which is {where} of its {_FILE}; "
                "load the tokenizer in transformers and save it anew with save_pretrained"
            )


class _Added(TypedDict):
    content: str


class _Template(TypedDict):
    name: str
    template: str


class _About(TypedDict, total=False):
    """A special token stands there as its text, or as an object that holds it."""

    bos_token: str | _Added | None
    eos_token: str | _Added | None
    unk_token: str | _Added | None
    pad_token: str | _Added | None
    additional_special_tokens: list[str | _Added] | None
    added_tokens_decoder: dict[str, _Added] | None  # by their ids
    chat_template: str | list[_Template] | None  # of several, each has a name


_Id = Annotated[int, Range(0, 2**31 - 1)]


class _Generation(TypedDict, total=False):
    eos_token_id: _Id | list[_Id] | None


def _optional(file: Path, schema: Any) -> dict[str, Any]:
    return read_json(file, schema) if file.exists() else {}


def _content(token: str | _Added | None) -> str:
    return token["content"] if isinstance(token, dict) else token or ""


def _eos_ids(folder: Path, backend: Any) -> list[int]:
    for name in ("generation_config.json", "config.json"):
        found = _optional(folder / name, _Generation).get("eos_token_id")
        if found is None:
            continue
        ids = found if isinstance(found, list) else [found]
        for i in ids:
            if backend.id_to_token(i) is None:
                raise damaged(folder / name, f"eos_token_id is {brief(i)}, which is no token")
        return ids
    return []


def _id_of(backend: Any, text: str | None) -> list[int]:
    found = backend.token_to_id(text) if text else None
    return [] if found is None else [found]


def _template(folder: Path, about: Mapping[str, Any]) -> str | None:
    file = folder / _TEMPLATE
    if file.exists():
        return read_text(file, LARGEST)
    found = about.get("chat_template")
    if isinstance(found, list):
        found = next((e["template"] for e in found if e["name"] == "default"), None)
    return found
