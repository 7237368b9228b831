# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of `debian-cloud`: one module each, the folder is the registry.

A verb's module has a docstring (its help and its part of the man page),
`arguments(parser)` and `main(args) -> int`: it reads words into plain values,
calls what does the work, and prints. Nothing below this folder knows argparse. `PLUMBING = True` marks verbs that
scripts call and people seldom do.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast

from debian_cloud import VERSION
from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.text.printable import paragraph, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


_SHARED: Final = "options"
"""The one module here that is no verb: the arguments that several of them share."""
_LONGEST: Final = 4000
"""Characters of an error about arguments: all choices of one are named."""


class Verb(Protocol):
    """What a module of this folder offers."""

    __doc__: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def main(self, args: argparse.Namespace) -> int:
        """Do it; the exit status."""


class _Parser(argparse.ArgumentParser):
    """A parser whose error is one line, whatever stands in the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, _LONGEST))


def names() -> tuple[str, ...]:
    """The verbs there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != _SHARED))


def verb(name: str) -> Verb:
    """The module of one verb."""
    return cast("Verb", importlib.import_module(f"{__name__}.{name}"))


def is_plumbing(name: str) -> bool:
    """Whether a verb is for scripts rather than for people."""
    return bool(getattr(verb(name), "PLUMBING", False))


def parser(name: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    module = verb(name)
    result = _Parser(
        prog=f"debian-cloud {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.arguments(result)
    return result


def usage() -> str:
    """The help of `debian-cloud` itself."""
    lines = ["usage: debian-cloud VERB [ARGUMENT…]", ""]
    for plumbing, title in ((False, "verbs:"), (True, "for scripts:")):
        lines += [title]
        lines += [f"  {name:<10}{summary(name)}" for name in names() if is_plumbing(name) is plumbing]
        lines += [""]
    lines += ["`debian-cloud VERB --help` tells more about a verb; debian-cloud(1) has it all."]
    return "\n".join(lines)


def summary(name: str) -> str:
    """The first line of a verb's docstring, without its stop."""
    return verb(name).__doc__.partition("\n")[0].rstrip(".")


def warn(sentence: str) -> None:
    """Tell of something that was left out."""
    print(f"debian-cloud: warning: {paragraph(sentence)}", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """Carry out one command line; the exit status."""
    if not argv:
        raise Error("no verb given", f"one of: {', '.join(names())}; see debian-cloud --help", USAGE)
    name, *rest = argv
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"debian-cloud {VERSION}")
        return 0
    if name not in names():
        raise Error(f"no such verb: {printable(name)}", did_you_mean(name, names()), USAGE)
    return verb(name).main(parser(name).parse_args(rest))
