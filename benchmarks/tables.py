"""Make the tables of README.md and benchmarks/README.md from the results in benchmarks/results.

    python benchmarks/tables.py [--check]

A block of a README between `<!-- table: NAME -->` and `<!-- end -->` is the template `templates/NAME.md`,
filled from `results/NAME.json`, which a benchmark wrote with --json. A template is one or more Markdown
tables; `{case; implementation; key: format}` in it stands for a value of the row of that name,
`key.inner` for a value inside a value. `key*1000` scales it. The format is Python's, with 2e-5 in place of
2e-05; `~` before it writes .98 in place of 0.98, and `=2` means two significant digits. --check changes
nothing and fails where a block is not what its results give.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
READMES = (FOLDER.parent / "README.md", FOLDER / "README.md")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
REFERENCE = re.compile(r"\{([^{};]+); ([^{};]+); ([\w.@]+)(?:\*([\d.e-]+))?: ([^{}]+)\}")


class TableError(Exception):
    """A table cannot be made: a file, a row or a value is missing."""


def shown(value: float, form: str) -> str:
    """Return a value in a template's format."""
    if form.startswith("="):
        digits = int(form[1:])
        before = math.floor(math.log10(abs(value))) + 1 if value else 1
        return f"{value:.{max(0, digits - before)}f}"
    text = re.sub(r"e([+-])0(?=\d)", r"e\1", format(value, form.removeprefix("~")))
    return re.sub(r"^(-?)0\.", r"\1.", text) if form.startswith("~") else text


def fill(template: str, rows: list[dict[str, Any]]) -> str:
    """Replace every reference of a template by the value that it names.

    Raises:
        TableError: no row or not exactly one has the case and implementation, or it lacks the key.
    """

    def value_of(match: re.Match[str]) -> str:
        case, implementation, key, factor, form = match.groups()
        found = [
            r for r in rows if (r.get("case"), r.get("implementation")) == (case, implementation)
        ]
        value: Any = found[0] if len(found) == 1 else {}
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, int | float):
            raise TableError(
                f"{match[0]}: {len(found)} rows, in one of them a number {key!r} is needed"
            )
        return shown(value * (float(factor) if factor else 1), form)

    return REFERENCE.sub(value_of, template)


def make(name: str, folder: Path = FOLDER) -> str:
    """Return the table NAME as Markdown.

    Raises:
        TableError: its template or its results are missing, or do not fit each other.
    """
    try:
        template = (folder / "templates" / f"{name}.md").read_text(encoding="utf-8")
        results = json.loads((folder / "results" / f"{name}.json").read_text(encoding="utf-8"))
        return fill(template, results["rows"])
    except (OSError, KeyError, ValueError, TableError) as error:
        raise TableError(f"table {name!r}: {error}") from error


def rewrite(text: str, folder: Path = FOLDER) -> str:
    """Return a README with every marked block made anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{make(block[2], folder)}{block[4]}", text)


def main() -> int:
    """Rewrite the READMEs, or compare them; 1 where --check finds a difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail where a table differs"
    )
    arguments = parser.parse_args()
    differing = 0
    for path in READMES:
        old = path.read_text(encoding="utf-8")
        new = rewrite(old)
        if new == old:
            continue
        differing += 1
        if arguments.check:
            print(f"{path.name}: a table is not what its results give: run benchmarks/tables.py")
        else:
            path.write_text(new, encoding="utf-8")
    return int(arguments.check and differing > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TableError as error:
        sys.exit(f"error: {error}")
