"""Commands that ask what a learner knows: quiz, exam.

A quiz explains every answer at once; a mock exam is timed and explains at the end; a review asks
what FSRS says is due. However it ends (q, Ctrl-C, the end of a pipe), the score so far is shown.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import monotonic

from minilora.cli.terminal.keyboard import Ended, Keyboard, TimeOver
from minilora.cli.terminal.output import say
from minilora.cli.terminal.quiz_screen import Screen
from minilora.learn.demos.demo import prove
from minilora.learn.exam import review
from minilora.learn.exam.answers import how_to_answer, is_typed, read_answer
from minilora.learn.exam.cards import Card, by_topic, load_cards
from minilora.learn.exam.paper_exam import paper_exam
from minilora.learn.exam.progress import Progress
from minilora.learn.exam.quiz import PASS, Answer, Question, draw, passed, question
from minilora.learn.notebooks.lessons import LESSONS
from minilora.system.errors import MiniloraError, MissingExtraError, UsageError, how_many
from minilora.system.files import write_atomically

_LATER = "-"
_DEFAULT = 20  # questions
_SEEDS = 10_000  # a random seed is below it: short enough to be typed again


def run_quiz(args: argparse.Namespace) -> int:
    if args.minutes and not args.exam:
        raise UsageError("--minutes is the time of a mock exam: add --exam")
    seed = _seed(args)
    rng = random.Random(seed)
    cards = _cards(args.topic)
    if args.review:
        review.scheduler()  # without fsrs there is none
    quiz = Quiz(Record(args.progress))
    if args.review:
        chosen = quiz.record.to_review(cards)
    else:
        chosen = draw(cards, _as_many(args.exam or args.questions, cards), rng)
    questions = [question(card, rng) for card in chosen]
    if not questions:
        return 0
    if args.exam:
        quiz.exam(questions, 60 * (args.minutes or len(questions)), seed)
    else:
        quiz.practise(questions, "" if args.review else f", seed {seed}")
    quiz.record.say_what_is_next(cards)
    return 0


def run_exam(args: argparse.Namespace) -> int:
    cards = _cards(args.topic)
    n = _as_many(args.questions, cards)
    seed = _seed(args)
    path = args.out or Path(f"minilora-exam-{seed}.html")
    html = paper_exam(cards, n, args.versions, seed)
    write_atomically(path, lambda temporary: temporary.write_text(html, "utf-8"))
    print(f"Written to {path}: {how_many(len(args.versions), 'version')} of "
          f"{how_many(n, 'question')}, each with its key at the end. Open it in a browser and "
          f"print it. Whoever knows its seed, {seed}, can make the key.")  # fmt: skip
    return 0


def _seed(args: argparse.Namespace) -> int:
    return random.randrange(_SEEDS) if args.seed is None else args.seed


def _cards(topic: str | None) -> list[Card]:
    """Those of the topic; None for all."""
    cards = load_cards()
    return cards if topic is None else by_topic(cards, topic)


def _as_many(wanted: int | None, cards: Sequence[Card]) -> int:
    """As many as are wanted, or there are; None for as many as asked by default."""
    n = wanted or _DEFAULT
    if wanted and wanted > len(cards):
        say(f"There are {len(cards)} cards to ask: all of them are asked, not {n}")
    return min(n, len(cards))


class Record:
    """What is kept of the answers, and when each card is due: if fsrs is installed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._progress = Progress(path)
        self._has_fsrs = True
        try:
            review.scheduler()
        except MissingExtraError:
            self._has_fsrs = False
            self._progress.note = 'progress is not kept without fsrs: pip install "minilora[cards]"'
        else:
            self._progress.save()  # so that a folder that cannot be written is noticed now
        self._say_note()

    def keep(self, answer: Answer) -> None:
        if not self._has_fsrs:
            return
        if self._progress.kept:
            self._progress = Progress(self._path)  # another quiz may have written to it
        kept, name = self._progress.cards, answer.question.card.id
        kept[name] = review.answered(kept.get(name), answer.right, datetime.now(UTC))
        self._progress.save()
        self._say_note()

    def to_review(self, cards: list[Card]) -> list[Card]:
        """Those that are due, then new ones."""
        kept, now = self._progress.cards, datetime.now(UTC)
        due = review.due_cards(cards, kept, now)
        new = [card for card in cards if card.id not in kept]
        chosen = new[: review.new_today(kept, now)]
        say(f"{len(due)} of {len(cards)} cards are due, {len(new)} are new: "
            f"{len(chosen)} of these today")  # fmt: skip
        if not due and not chosen:
            self.say_what_is_next(cards)
        return due + chosen

    def say_what_is_next(self, cards: list[Card]) -> None:
        kept, now = self._progress.cards, datetime.now(UTC)
        times = [review.due_at(kept[card.id]) for card in cards if card.id in kept]
        if times and self._has_fsrs and self._progress.kept:
            first = min(times)
            then = sum(time <= first + timedelta(days=1) for time in times)
            say(f"Next: {how_many(then, 'card')} due {_when(first, now)}, for minilora quiz "
                f"--review; progress is kept in {self._progress.path}")  # fmt: skip

    def _say_note(self) -> None:
        """Once."""
        if self._progress.note:
            say(f"minilora: {self._progress.note}")
            self._progress.note = ""


class Quiz:
    """A person at the keyboard, and what is asked."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._screen = Screen()
        self._keyboard = Keyboard()

    def practise(self, questions: list[Question], about: str) -> None:
        """One question after another, each answer explained at once."""
        self._screen.say(f"{how_many(len(questions), 'question')}{about}. "
                         "Type ? for help, q to end.")  # fmt: skip
        answers: list[Answer] = []
        try:
            for i, asked in enumerate(questions):
                self._screen.question(asked, f"{i + 1} of {len(questions)}")
                answer = self._ask(asked) or Answer(asked)
                answers.append(answer)
                self.record.keep(answer)
                last = i + 1 == len(questions)
                self._explain(answer, "the score" if last else "next")
        except (Ended, KeyboardInterrupt):
            self._screen.say("")
        self._finish(answers, ".")

    def exam(self, questions: list[Question], seconds: float, seed: int) -> None:
        """Timed, without a word on right or wrong until the end."""
        n = len(questions)
        self._screen.say(
            f"Mock exam, seed {seed}: {how_many(n, 'question')} in {_clock(seconds)}. "
            "Type - to leave a question for later, ? for help, q to hand in."
        )
        deadline = monotonic() + seconds
        answers = {asked: Answer(asked) for asked in questions}
        waiting = deque(enumerate(questions))
        try:
            while waiting:
                i, asked = waiting.popleft()
                left = f"{_clock(deadline - monotonic())} left"
                self._screen.question(asked, f"{i + 1} of {n}", left)
                answer = self._ask(asked, deadline)
                if answer is None and self._keyboard.by_hand:
                    waiting.append((i, asked))
                elif answer:
                    answers[asked] = answer
                    self.record.keep(answer)
        except TimeOver:
            self._screen.say("\nThe time is over.", "bold")
        except (Ended, KeyboardInterrupt):
            self._screen.say("")
        given = [*answers.values()]
        unanswered = sum(not answer.typed for answer in given)
        if unanswered:
            self._screen.say(f"Unanswered, which counts as not right: {unanswered} of {n}.")
        verdict = f"passed on {date.today()}" if passed(given) else "not passed"
        self._finish(given, f": {verdict}; the pass line is {100 * PASS:.0f} %.")

    def _ask(self, asked: Question, deadline: float | None = None) -> Answer | None:
        """The answer, or None if there is none (yet). A person is asked until there is one, a pipe
        once, since its next line is for the next question."""
        letters = not is_typed(asked.card)
        while True:
            more = "" if letters else " (Enter: show choices)"
            typed = self._keyboard.line(f"Your answer{more}:", deadline)
            if typed == _LATER:
                return None
            if not typed and not letters:
                letters = True
                self._screen.choices(asked)
                self._screen.say("")
                continue
            try:
                if typed != "?":
                    return read_answer(asked, typed, letters)
                way = how_to_answer(asked, letters)
                self._screen.say(f"Type {way}; {_LATER} to leave it open; q to end.")
            except UsageError as error:
                self._screen.say(f"Please {error}; ? for help.")
            if not self._keyboard.by_hand:
                return None

    def _explain(self, answer: Answer, after: str) -> None:
        self._screen.feedback(answer)
        if not self._keyboard.key(f"Enter: {after} · s: show me · q: end", "s"):
            return
        try:
            self._screen.proof(answer.question, prove(answer.question.card))
        except MiniloraError as error:
            self._screen.say(f"It cannot be measured here: {error}")
        self._keyboard.key(f"Enter: {after} · q: end", "")

    def _finish(self, answers: list[Answer], verdict: str) -> None:
        if not answers:
            self._screen.say("No question was answered.")
            return
        self._screen.score(answers, verdict)
        self._screen.reread(answers, _lessons())
        wrong = [answer for answer in answers if not answer.right]
        try:
            if wrong and self._keyboard.key(f"r: what was wrong ({len(wrong)}) · Enter: end", "r"):
                for i, answer in enumerate(wrong):
                    self._screen.question(answer.question, f"{i + 1} of {len(wrong)}")
                    self._explain(answer, "end" if i + 1 == len(wrong) else "next")
        except (Ended, KeyboardInterrupt):
            self._screen.say("")


def _lessons() -> dict[str, Path]:
    """The notebooks that are there, by their numbers."""
    found = LESSONS.glob("[0-9][0-9]_*.ipynb") if LESSONS else []
    here = Path.cwd()
    return {
        path.name[:2]: path.relative_to(here) if path.is_relative_to(here) else path
        for path in found
    }


def _clock(seconds: float) -> str:
    whole = max(round(seconds), 0)
    return f"{whole // 60}:{whole % 60:02}"


def _when(time: datetime, now: datetime) -> str:
    if time <= now:
        return "now"
    days = (time.astimezone().date() - now.astimezone().date()).days
    if days < 2:
        return ("today", "tomorrow")[days]
    return f"in {days} days, on {time.astimezone():%Y-%m-%d}"
