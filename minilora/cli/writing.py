"""A model writes: `generate` continues a prompt, `generate --chat` is a conversation.

In a conversation with an adapter /base and /adapter answer the last question again, without it and
with it, so that one sees what it has changed.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from functools import partial

import numpy as np
from rich.text import Text

from minilora.cli.terminal.console import Console
from minilora.cli.terminal.keyboard import Ended, Keyboard
from minilora.cli.terminal.output import say, show
from minilora.experiments.tasks import BASE_MODELS
from minilora.generation.answers import answer
from minilora.generation.sampling import write
from minilora.hub import load_adapter, load_model, load_tokenizer
from minilora.hub.adapters import adapter_base
from minilora.lora import disable_adapter
from minilora.system.errors import UsageError
from minilora.text.alphabet import ALPHABET, to_alphabet
from minilora.tokens.tokenizer import Tokenizer
from minilora.transformer import Transformer

_COMMANDS = {
    "/base": "the last answer again, without the adapter",
    "/adapter": "… and with it",
    "/new": "forget what was said",
    "/exit": "leave, as Ctrl-D does",
}


def run_generate(args: argparse.Namespace) -> None:
    model = load_model(args.model) if args.model else _own_base(args)
    tokenizer = tokenizer_of(model)
    if args.adapter:
        load_adapter(model, args.adapter)
    if not args.chat:
        _continue(args, model, tokenizer)
    elif tokenizer is None:
        raise UsageError(
            f"{model.loaded_from} continues texts, symbol by symbol, and does not chat; leave out "
            "--chat, or use --model smollm2"
        )
    else:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}])  # or it is no chat model
        conversation = _Conversation(args, model, tokenizer)
        if args.prompt is None:
            conversation.hold()
        else:
            conversation.reply(args.prompt)
            print()


def tokenizer_of(model: Transformer) -> Tokenizer | None:
    """The tokenizer beside a model's files; None for one that reads the symbols of ALPHABET."""
    if model.config.vocab_size == len(ALPHABET) or model.loaded_from is None:
        return None
    return load_tokenizer(model.loaded_from)


def _own_base(args: argparse.Namespace) -> Transformer:
    """The model that an adapter was trained on; without any, smollm2 to chat, else docs-tiny."""
    base = adapter_base(args.adapter) if args.adapter else None
    try:
        return load_model(base or ("smollm2" if args.chat else "docs-tiny"))
    except (OSError, UsageError) as error:
        if base is None:
            raise
        raise UsageError(
            f"{args.adapter} was trained on {base}, which is not here; give its folder with "
            f"--model ({error})"
        ) from None


def _continue(args: argparse.Namespace, model: Transformer, tokenizer: Tokenizer | None) -> None:
    answers = model.config == BASE_MODELS["words-tiny"].model  # it knows words, not texts
    prompt = args.prompt
    if prompt is None:
        prompt = "=brave>" if answers else "The "
    written = to_alphabet(prompt) if tokenizer is None else prompt
    shown = iter([written])  # with the first symbol, so not if the options are wrong
    write(
        model,
        prompt,
        args.tokens,
        tokenizer=tokenizer,
        temperature=0.7 if args.temperature is None else args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        stop="\n" if answers else None,
        on_text=lambda new: show(next(shown, "") + new),
    )
    print(next(shown, ""))


class _Conversation:
    def __init__(self, args: argparse.Namespace, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.has_adapter, self.adapted = model, bool(args.adapter), bool(args.adapter)
        self.messages: list[dict[str, str]] = []
        self.answer = partial(
            answer,
            model,
            tokenizer,
            length=args.tokens,
            temperature=0.2 if args.temperature is None else args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
        )
        self.seed = args.seed

    def hold(self) -> None:
        """Answer what is typed, until that ends."""
        keyboard, console = Keyboard(), Console(highlight=False)
        if keyboard.by_hand:
            say("Ctrl-C stops an answer, Ctrl-D leaves; /help says what else there is.")
        while True:
            try:
                typed = keyboard.message("You:")
            except (Ended, KeyboardInterrupt):
                print()
                return
            if typed == "/exit":
                return
            if question := self._obey(typed):
                console.print(Text(f"{self._speaker()}:", style="bold"), end=" ")
                try:
                    self.reply(question)
                except UsageError as error:
                    if not keyboard.by_hand:
                        raise
                    say(str(error))
                except KeyboardInterrupt:
                    if not keyboard.by_hand:
                        raise
                    show(" …")
                print()

    def _obey(self, typed: str) -> str:
        """The question to answer now, or none."""
        if typed in ("/base", "/adapter"):
            if not self.has_adapter:
                say("There is no adapter; give one with --adapter FOLDER.")
                return ""
            self.adapted = typed == "/adapter"
            asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
            if not asked:
                return ""
            question, self.messages = (
                self.messages[asked[-1]]["content"],
                self.messages[: asked[-1]],
            )
            return question
        if typed == "/new":
            self.messages = []
        elif typed.startswith("/") and " " not in typed:
            width = max(map(len, _COMMANDS))
            say("\n".join(f"{name:<{width}}  {about}" for name, about in _COMMANDS.items()))
        else:
            return typed
        return ""

    def _speaker(self) -> str:
        if not self.has_adapter:
            return "Model"
        return "Adapter" if self.adapted else "Base"

    def reply(self, question: str) -> None:
        """Show the answer while it is made. Of one that was stopped, what was shown is kept."""
        messages = [*self.messages, {"role": "user", "content": question}]
        parts: list[str] = []

        def show_part(part: str) -> None:
            parts.append(part)
            show(part)

        switched_off = self.has_adapter and not self.adapted
        try:
            with disable_adapter(self.model) if switched_off else nullcontext():
                rng = np.random.default_rng((self.seed, len(messages)))
                self.answer(messages, rng=rng, on_text=show_part)
        finally:
            if parts:
                self.messages = [*messages, {"role": "assistant", "content": "".join(parts)}]
