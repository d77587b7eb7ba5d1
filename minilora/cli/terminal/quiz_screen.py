"""How a quiz looks in a terminal: a question, what is said to an answer, a demo, the score.

Right and wrong are words, not only colours. Lines are at most 88 characters long, since longer ones
are hard to read; formulas are spelled out where the terminal lacks their characters (plain.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from minilora.cli.terminal.console import Console
from minilora.cli.terminal.plain import plain
from minilora.learn.demos.demo import Proof
from minilora.learn.exam.answers import is_typed
from minilora.learn.exam.cards import LESSONS, LETTERS, TOPICS, Choice
from minilora.learn.exam.maths import to_text
from minilora.learn.exam.quiz import Answer, Question, solution, to_reread, topic_scores

_WIDEST = 88


class Screen:
    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)

    def say(self, text: str, style: str = "") -> None:
        self._print(self._text(text, style))

    def question(self, question: Question, place: str, left: str = "") -> None:
        """With its choices, if they are to be chosen from. place: "3 of 20". left: of the time."""
        card = question.card
        head = Table.grid(expand=True, padding=(0, 2, 0, 0))
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(self._text(place, "bold"), self._text(TOPICS[card.topic], "dim"), left)
        self._print()
        self._print(head)
        self._line()
        self.say(to_text(card.question), "bold")
        self._list([(str(i + 1), to_text(item)) for i, item in enumerate(card.items)])
        self._list([(LETTERS[i], to_text(option)) for i, option in enumerate(card.options)])
        if not is_typed(card):
            self.choices(question)
        self._print()

    def choices(self, question: Question) -> None:
        """With their letters."""
        rows = [(question.letter(choice), to_text(choice.text)) for choice in question.choices]
        self._list(rows)

    def feedback(self, answer: Answer) -> None:
        """Right or wrong, and why; what the card teaches, and where that is from."""
        question, card = answer.question, answer.question.card
        name = self._name(question, card.right)
        if answer.right:
            self.say(f"Right: {name}.", "bold green")
        elif answer.typed:
            given = self._name(question, answer.choice) if answer.choice else answer.typed
            self.say(f"Wrong: not {given}, but {name}.", "bold red")
        else:
            self.say(f"Not answered: right is {name}.", "bold red")
        reasons = [answer.choice, card.right]
        for choice in dict.fromkeys(filter(None, reasons)):
            letter = "-" if is_typed(card) else question.letter(choice)
            self._list([(letter, to_text(choice.why))])
        self._list([(f"{i + 1}.", to_text(line)) for i, line in enumerate(solution(card))])
        self._print()
        self.say(to_text(card.explanation))
        lesson = f"Lesson {card.lesson}, {LESSONS[card.lesson]}."
        self.say(f"Source: {to_text(card.source)}. {lesson}", "dim")
        self._print()

    def proof(self, question: Question, proof: Proof) -> None:
        """What a demo did, what it measured, and what that supports."""
        self._print()
        self.say(f"Measured just now: {proof.does}", "bold")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(justify="right", no_wrap=True)
        for name, value in proof.measured.items():
            table.add_row(self._text(name), _number(value))
        self._print(Padding(table, (0, 0, 0, 2)))
        supported = [c for c in question.choices if c.key in proof.supported]
        verdict = " and ".join(self._name(question, choice) for choice in supported)
        if supported == [question.card.right]:
            verdict += ", and refutes the others"
        self.say(f"This supports {verdict or 'none of the choices'}.")
        self._print()

    def score(self, answers: Sequence[Answer], verdict: str) -> None:
        """verdict: what follows the number of right answers."""
        right = sum(answer.right for answer in answers)
        self._line()
        share = f"{100 * right / len(answers):.0f} %"
        self.say(f"{right} of {len(answers)} right ({share}){verdict}", "bold")
        table = Table.grid(padding=(0, 2))
        for topic, (right, asked) in topic_scores(answers).items():
            table.add_row(topic, self._bar(right / asked), f"{right} of {asked}")
        self._print(Padding(table, (1, 0, 1, 2)))

    def reread(self, answers: Sequence[Answer], notebooks: dict[str, Path]) -> None:
        """Which lessons treat what was wrong. notebooks: where a lesson can be found."""
        wrong = to_reread(answers)
        if not wrong:
            return
        self.say("To read again:", "bold")
        rows = []
        for lesson, times in wrong.items():
            missing = ", no notebook yet" if notebooks else ""
            where = f": {notebooks[lesson]}" if lesson in notebooks else missing
            rows.append((lesson, f"{LESSONS[lesson]} ({times} wrong){where}"))
        self._list(rows)
        self._print()

    def _name(self, question: Question, choice: Choice) -> str:
        """Its letter, if choices were shown from the start, else what it says."""
        return to_text(choice.text) if is_typed(question.card) else question.letter(choice)

    def _list(self, rows: list[tuple[str, str]]) -> None:
        """Labels, and beside each its text, which keeps its indent from line to line."""
        if not rows:
            return
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(ratio=1, overflow="fold")
        for label, text in rows:
            table.add_row(self._text(label), self._text(text))
        self._print(Padding(table, (1, 0, 0, 2)))

    def _print(self, *shown: RenderableType) -> None:
        self._console.print(*shown, width=self._width)

    @property
    def _width(self) -> int:
        """Now: a window may be made narrower during a quiz."""
        return min(self._console.width, _WIDEST)

    def _line(self) -> None:
        self._print(Rule(characters=plain("─", self._console.encoding), style="dim"))

    def _bar(self, share: float) -> Text:
        length = max(self._width // 4, 5)
        full = round(share * length)
        return self._text("█" * full + "░" * (length - full), "yellow")

    def _text(self, text: str, style: str = "") -> Text:
        return Text(plain(text, self._console.encoding), style)


def _number(value: float) -> str:
    """As a person reads it: 9,216, or four digits of what is not whole; yes or no."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return "yes" if value else "no"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.4g}"
