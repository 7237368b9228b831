# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of `debian-cloud`: one module each, the directory is the registry.

A verb's module has a docstring (its help and its part of the man page),
`arguments(parser)` and `main(args) -> int`: it reads words into plain values,
calls what does the work, and prints. `in_plans` has those that a printed plan
calls, and people seldom do: `--help` does not list them. `machines` has those for instances, which are in
a package of their own.
"""

from __future__ import annotations

import sys
from importlib import util
from typing import TYPE_CHECKING, Final

from debian_cloud import VERSION
from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host.command import Verb, Verbs
from debian_cloud.text.printable import paragraph, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_PEOPLE: Final = Verbs(__name__, "debian-cloud", shared=("options",))
_IN_PLANS: Final = Verbs(f"{__name__}.in_plans", "debian-cloud")
_OF_MACHINES: Final = Verbs(f"{__name__}.machines", "debian-cloud", shared=("options",))
_PACKAGE: Final = "debian-cloud-machines"


def names() -> tuple[str, ...]:
    """The verbs for people, sorted."""
    return tuple(sorted((*_PEOPLE.names(), *of_machines())))


def of_machines() -> tuple[str, ...]:
    """Those of them that are for instances, sorted; none if their package is not installed."""
    return _OF_MACHINES.names() if util.find_spec(_OF_MACHINES.package) else ()


def of_plans() -> tuple[str, ...]:
    """The verbs that a printed plan calls, sorted."""
    return _IN_PLANS.names()


def verb(name: str) -> Verb:
    """The module of one verb, of either kind."""
    return _of(name).verb(name)


def parser(name: str) -> argparse.ArgumentParser:
    """The parser of one verb, of either kind."""
    return _of(name).parser(name)


def summary(name: str) -> str:
    """The first line of a verb's docstring, without its full stop."""
    return _of(name).summary(name)


def usage() -> str:
    """The help of `debian-cloud` itself."""
    lines = ["usage: debian-cloud VERB [ARGUMENT…]", "", "verbs:"]
    lines += [f"  {name:<11}{summary(name)}" for name in names()]
    lines += ["", "See `debian-cloud VERB --help` or debian-cloud(1) for more about a verb."]
    return "\n".join(lines)


def warn(sentence: str) -> None:
    """Print a warning on standard error."""
    print(f"debian-cloud: warning: {paragraph(sentence)}", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    if not argv:
        raise Error("no verb given", f"give one of: {', '.join(names())}; see debian-cloud --help", USAGE)
    name, *rest = argv
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"debian-cloud {VERSION}")
        return 0
    if name not in (*names(), *of_plans()):
        more = "" if of_machines() else f"; verbs for instances are in the package {_PACKAGE}"
        raise Error(f"no such verb: {printable(name)}", f"{did_you_mean(name, names())}{more}", USAGE)
    return verb(name).main(parser(name).parse_args(rest))


def _of(name: str) -> Verbs:
    return _IN_PLANS if name in of_plans() else _OF_MACHINES if name in of_machines() else _PEOPLE
