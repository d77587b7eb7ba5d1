"""The checkers of all exercises by their names, as the lessons call them: `check.count_lora(...)`.

How a checker works is in exercise.py; those of a lesson are in its exercises_NN.py.
Imports exercise.py, exercises_00.py, exercises_05.py, exercises_06.py, exercises_07.py.
"""

from __future__ import annotations

from minilora.learn import lesson_00 as exercises_00
from minilora.learn import lesson_05 as exercises_05
from minilora.learn import lesson_06 as exercises_06
from minilora.learn import lesson_07 as exercises_07
from minilora.learn.exercises import EXERCISES, Verdict

__all__ = ["EXERCISES", "Verdict"]
for _lesson in (exercises_00, exercises_05, exercises_06, exercises_07):
    globals().update({name: vars(_lesson)[name] for name in EXERCISES if name in vars(_lesson)})
