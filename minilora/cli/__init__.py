"""What a person types. `python -m minilora` compares both methods, other commands do single things.

Here is which file has a command, and how it ends: an error that a user can mend is one sentence;
any other is a fault of ours and keeps its traceback. MINILORA_TRACEBACK=1 shows it for both.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from minilora.cli.plain import ERRORS
from minilora.system.errors import MiniloraError
from minilora.system.memory import keep_freed_memory

COMMANDS = {  # the file of this room that has run_NAME; it is imported when it is needed
    "compare": "training",
    "finetune": "training",
    "generate": "training",
    "pretrain": "training",
    "params": "looking",
    "profile": "looking",
    "doctor": "looking",
    "study": "studying",
    "figures": "studying",
    "sweep": "studying",
    "spectrum": "studying",
    "lessons": "learning",
    "page": "learning",
    "cards": "exporting",
    "quiz": "quizzing",
    "exam": "quizzing",
