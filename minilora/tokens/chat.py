"""A chat as one text: the template that comes with a model, filled in.

Messages and templates are those of transformers' apply_chat_template. A template is a program, in
the language of Jinja2, by whoever made the model; sandbox.py lets it do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minilora.system.errors import MissingExtraError, UsageError

Message = Mapping[str, str]  # {"role": "user", "content": "…"}


def checked_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as dicts, without what is None. Raises ValueError unless each has a role and a
    content, and all it has are texts."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise UsageError(
            'messages must be a list such as [{"role": "user", "content": "Hello"}], got a '
            f"{type(messages).__name__}"
        )
    checked = []
    for i, message in enumerate(messages):
        given = dict(message) if isinstance(message, Mapping) else {}
        texts = {key: value for key, value in given.items() if value is not None}
        whole = {"role", "content"} <= texts.keys()
        if not whole or not all(isinstance(value, str) for value in texts.values()):
            raise UsageError(
                f'message {i} must be {{"role": "user", "content": "…"}}, both texts; '
                f"got {message!r:.80}"
            )
        checked.append(texts)
    return checked


def render(
    template: str, messages: Sequence[Message], variables: Mapping[str, Any], what: str
) -> str:
    """The text of a chat. `what` names the template in errors.

    Raises ValueError if the template refuses the messages, is no template, tries what the sandbox
    forbids, or goes beyond its limits; MissingExtraError without Jinja2.
    """
    try:
        from minilora.tokens import sandbox
    except ModuleNotFoundError:
        raise MissingExtraError('a chat needs Jinja2: pip install "minilora[hf]"') from None
    try:
        unused = {"tools": None, "documents": None}  # some templates look whether there are any
        return sandbox.run(template, {"messages": list(messages), **unused, **variables})
    except sandbox.Refused as refusal:
        raise UsageError(f"{what} refuses these messages: {refusal}") from None
    except sandbox.Forbidden as error:
        raise UsageError(f"{what} is not safe ({error}); take the model from elsewhere") from None
    except Exception as error:  # whatever it raises, the template is to blame
        cause = str(error) or type(error).__name__
        raise UsageError(f"{what} does not work ({cause}); copy or download it again") from None
