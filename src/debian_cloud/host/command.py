# SPDX-License-Identifier: GPL-3.0-or-later
"""What every command has in common: a folder of verbs, the one error that users see, and what any verb may meet.

That is an interruption, a closed pipe or a full disk.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import pkgutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host import signals
from debian_cloud.text.printable import paragraph, printable, printed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_LONGEST: Final = 4000
"""Characters of an error about arguments: all choices of one are named."""
_LAST: Final = 2
"""The number of standard error, the last of the three streams that every program has."""
_SIGNALLED: Final = 128
"""What a shell adds to the number of a signal that ended a command."""


class Verb(Protocol):
    """What a module of a folder of verbs offers: its docstring is its help."""

    __doc__: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def main(self, args: argparse.Namespace) -> int:
        """Do it; the exit status."""


class _Parser(argparse.ArgumentParser):
    """A parser whose error is one line, whatever stands in the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, _LONGEST))


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs of a package: one module each, the folder is the registry. `command` is how they are called.

    In the name of a module there is a `_` for each `-` of the verb's. `shared` are modules of the package that are no
    verbs: what several of them declare alike.
    """

    package: str
    command: str
    shared: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """The verbs there are, sorted."""
        modules = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        others = ("__main__", *self.shared)
        found = (module.name for module in modules if not module.ispkg and module.name not in others)
        return tuple(sorted(name.replace("_", "-") for name in found))

    def verb(self, name: str) -> Verb:
        """The module of one verb."""
        return cast("Verb", importlib.import_module(f"{self.package}.{name.replace('-', '_')}"))

    def parser(self, name: str) -> argparse.ArgumentParser:
        """The parser of one verb."""
        module = self.verb(name)
        result = _Parser(
            prog=f"{self.command} {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.arguments(result)
        return result

    def summary(self, name: str) -> str:
        """The first line of a verb's docstring, without its stop."""
        return self.verb(name).__doc__.partition("\n")[0].rstrip(".")

    def run(self, argv: Sequence[str]) -> int:
        """Carry out one verb with its arguments; the exit status."""
        name, *rest = argv
        if name not in self.names():
            raise Error(f"no such verb: {printable(name)}", did_you_mean(name, self.names()), USAGE)
        return self.verb(name).main(self.parser(name).parse_args(rest))


def main(carry_out: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Carry out a command line; 0 done, 1 no (verification or policy failed), 2 wrong use."""
    _open_what_is_closed()
    with (
        contextlib.redirect_stdout(printed(sys.stdout)),
        contextlib.redirect_stderr(printed(sys.stderr)),
    ):
        return _main(carry_out, sys.argv[1:] if argv is None else argv)


def _open_what_is_closed() -> None:
    """Let a stream that was closed before we began lead nowhere: else the next file would have its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - it takes no name
    os.close(descriptor)
    # Python has None for them; they are open for as long as we live.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _main(carry_out: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        return _run(carry_out, argv)
    except Error as error:
        print(f"debian-cloud: error: {paragraph(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"debian-cloud: hint: {paragraph(error.hint)}", file=sys.stderr)
        return error.status
    except signals.Ended as ended:
        print("debian-cloud: terminated", file=sys.stderr)
        return _SIGNALLED + int(ended.args[0])
    except KeyboardInterrupt:
        print("debian-cloud: interrupted", file=sys.stderr)
        return _SIGNALLED + signal.SIGINT
    except BrokenPipeError:
        _forget_output()
        return 1


def _run(carry_out: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        status = carry_out(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            # A name that is too long, a disk that fails, a file that is another's.
            where = f"{error.filename}: " if error.filename else ""
            hint = "is that the right file, and the disk whole?"
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                hint = "choose another place, or run it as a user who may read and write there"
            raise Error(f"{where}{error.strerror or error}", hint) from error
        _forget_output()
        # Of a copy, the second is what was written.
        name = error.filename2 or error.filename
        where = f": nothing more can be written to {name}" if name else ""
        raise Error(f"the disk is full{where}", "free some space, and run it again") from error
    return status


def _forget_output() -> None:
    """Let what could not be written go: Python would try again at its end, and say so in words of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
