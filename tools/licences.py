"""Write docs/reference/licences.md: under which licence each pinned package comes, as its own metadata says.

`python tools/licences.py` in an environment with all extras; a test fails where the page is out of step.
"""

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = "docs/reference/licences.md"
LONGEST = 60
HEAD = """# Licences

cutsew itself is MIT (`LICENSE`). Besides code, its wheel carries: the weights of the demo's tiny CLIP,
trained here on scenes drawn from OpenMoji; style, script and templates of the report; a table of published numbers with
their sources. No artwork and no weights of others are in it. Images of these pages show artwork of OpenMoji (CC BY-SA
4.0).

`pillow-heif` is BSD-3-Clause, but its binary wheels bundle x265 and are GPL-2.0 as a whole. Only HEIC images need it,
and only the extra `heic` installs it.

What it is installed with, from the packages' own metadata (written by `python tools/licences.py`):

| package | version | licence |
|---|---|---|
"""


def page() -> str:
    """Return the page."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    rows = [f"| {name} | {version} | {licence(distribution(name))} |" for name, version in pins]
    return HEAD + "\n".join(sorted(rows, key=str.lower)) + "\n"


def licence(package: Distribution) -> str:
    """Return the SPDX expression, else the classifier, else the old field or the first line of the licence's file."""
    result = package.metadata
    named = [str(result["License-Expression"])] if result["License-Expression"] else []
    for entry in result.get_all("Classifier") or []:
        kind, _, rest = entry.partition(" :: ")
        if kind == "License" and not named:
            named.append(rest.rpartition(" :: ")[2])
    old = " ".join((result["License"] or "").replace("UNKNOWN", "").split())
    if not named:
        named.append(old if 0 < len(old) <= LONGEST else headline(package))
    return named[0].replace("|", "/")


def headline(package: Distribution) -> str:
    """Return the first line of a package's licence file."""
    for file in package.files or []:
        if re.match(r"(?i)licen[cs]e|copying", file.name):
            return next(line.strip() for line in file.read_text().splitlines() if line.strip())[:LONGEST]
    return "not said"


if __name__ == "__main__":
    (ROOT / PAGE).write_text(page(), encoding="utf-8")
