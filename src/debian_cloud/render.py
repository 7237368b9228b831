# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations -> debian/control; the only importer of jinja2.

`python3 -m debian_cloud.render` rewrites debian/control of the source tree in
the current folder; with `--check` it shows what would change, and fails.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2

from .errors import FAILED, Error

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTROL: Final = "debian/control"
_STANZA: Final = "stanza.j2"


def configurations(root: Path) -> tuple[str, ...]:
    """Names of the configurations in a source tree: the folders of configs/ that have a stanza, sorted."""
    return tuple(sorted(path.parent.name for path in root.glob(f"configs/*/{_STANZA}")))


def render(root: Path) -> str:
    """The text of debian/control for a source tree; Error names the template and line that is wrong."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is a control file, not HTML
    )
    try:
        stanzas = [
            environment.get_template(f"configs/{name}/{_STANZA}").render(name=name).strip() + "\n"
            for name in configurations(root)
        ]
        return environment.get_template(f"{CONTROL}.j2").render(stanzas=stanzas)
    except (jinja2.TemplateError, TypeError) as error:
        # A macro's wrong argument is a TypeError; a template that is not found has its name as the message.
        what = f"no template {error}" if isinstance(error, jinja2.TemplateNotFound) else str(error)
        raise Error(f"{_place(error, root)}: {what}", "see configs/image.j2 for what a stanza may set") from error


def _place(error: Exception, root: Path) -> str:
    """Template and line of an error; jinja2 names them in syntax errors, else in the traceback alone."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.name}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno}" if frames else f"{CONTROL}.j2"


def difference(root: Path) -> str:
    """What rendering would change in the committed debian/control, as a unified diff; empty if nothing."""
    path = root / CONTROL
    committed = path.read_text("utf-8") if path.exists() else ""
    return "".join(
        difflib.unified_diff(
            committed.splitlines(keepends=True),
            render(root).splitlines(keepends=True),
            f"{CONTROL} (committed)",
            f"{CONTROL} (rendered)",
        )
    )


def main(argv: Sequence[str]) -> int:
    """Rewrite debian/control, or with --check compare; the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m debian_cloud.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if debian/control is stale")
    args = parser.parse_args(argv)
    root = Path.cwd()
    try:
        if args.check:
            stale = difference(root)
            sys.stdout.write(stale)
            return FAILED if stale else 0
        (root / CONTROL).write_text(render(root), "utf-8")
    except Error as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
