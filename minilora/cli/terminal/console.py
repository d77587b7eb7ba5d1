"""Where commands show what they found: rich's console, but nothing shown gives the terminal orders.

Names in a file can hold any character, and so a terminal's escape sequences, which move the cursor,
change what stands there already or the window's title.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from minilora.cli.terminal.plain import harmless


class Console(rich.console.Console):
    """rich.console.Console; colours and the like, which it adds itself, stay."""

    def render(self, *shown: Any, **options: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*shown, **options):
            yield Segment(text if control else harmless(text), style, control)
