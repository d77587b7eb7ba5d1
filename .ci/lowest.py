"""Do the packages of this environment have the lowest versions that pyproject.toml allows?

    python .ci/lowest.py EXTRA ...

Prints each direct dependency, also those of the extras, with its bound; exit 1 if another version
is installed, or if a bound is missing.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.version import Version


def direct(extras: set[str]) -> Iterator[Requirement]:
    """The dependencies of minilora, and those of these extras, which may name other extras."""
    for line in requires("minilora"):
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if requirement.name == "minilora":
            yield from direct(requirement.extras)
        else:
            yield requirement


def main(extras: list[str]) -> int:
    wrong = 0
    for requirement in sorted(set(direct({"", *extras})), key=str):
        lowest = next((s.version for s in requirement.specifier if s.operator == ">="), None)
        installed = version(requirement.name)
        same = lowest is not None and Version(installed) == Version(lowest)
        wrong += not same
        print(f"{requirement.name:20}{installed:12}{'' if same else f'but the bound is {lowest}'}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
