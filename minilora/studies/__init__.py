"""Each study asks one question about LoRA and answers it with many short trainings.

Learning rates are chosen on the validation split, results are those on the test split. A new study
is one new file, which says STUDY = Study(...), and its name in the list below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from minilora.experiments.rows import Rows, read_rows
from minilora.hub.places import ASSETS
from minilora.studies.study import Study
from minilora.system.errors import UsageError
from minilora.system.readers import damaged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = (
    "known_rank_teacher",
    "rank_sweep",
    "learning_rate_sweep",
    "without_regret",
    "methods",
    "svd_starts",
    "alpha_sweep",
    "which_weights",
    "how_few_numbers",
    "forgetting_frontier",
    "small_data",
    "spectrum",
    "delta_over_training",
    "intruders_by_lambda",
    "truncation",
    "leave_one_out",
    "rl_rank_one",
    "subspace_similarity",
    "parameter_counts",
)
STUDIES: dict[str, Study] = {
    name: import_module(f"minilora.studies.{name}").STUDY for name in _NAMES
}
SHIPPED = ASSETS / "results"


def _require_studies(*names: str) -> None:
    for name in names:
        if name not in STUDIES:
            raise UsageError(f"there is no study {name!r}; the studies are {', '.join(STUDIES)}")


def shipped_rows(name: str) -> Rows:
    """The rows of a study as they come with the package, three seeds each.

    Raises UsageError for a name that is not in STUDIES, and for a file that is damaged.
    """
    _require_studies(name)
    file, study = SHIPPED / f"{name}.json", STUDIES[name]
    rows = read_rows(file)
    for i, row in enumerate(rows):
        if lacking := {*study.by, *study.shows} - row.keys():
            raise damaged(file, f"rows[{i}] lacks {', '.join(sorted(lacking))}")
    return rows


def study_figures(
    results: dict[str, Rows], only: Iterable[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of each study whose rows, and those it is drawn beside, are in `results`.
    only: leave out figures that use none of these studies. Raises UsageError for a name that is
    not in STUDIES."""
    wanted = set(results if only is None else only)
    _require_studies(*results, *wanted)
    for name, study in STUDIES.items():
        used = (name, *study.beside)
        if results.keys() >= set(used) and wanted & set(used):
            yield name.replace("_", "-"), study.figure(*(results[each] for each in used))
