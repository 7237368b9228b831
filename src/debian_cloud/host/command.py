# SPDX-License-Identifier: GPL-3.0-or-later
"""What all commands share: a directory of verbs, the one error that users see, and failures that any verb may have.

These failures are an interruption, a closed pipe and a full disk.
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
"""Maximum characters of an error about arguments, which names all choices of an argument."""
_LAST: Final = 2
"""File descriptor of standard error, the last of the three standard streams."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SIGNALLED: Final = 128
"""What a shell adds to the number of the signal that ended a command."""


class Verb(Protocol):
    """The interface of a verb's module; its docstring is its help."""

    __doc__: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def main(self, args: argparse.Namespace) -> int:
        """Run the verb, and return its exit status."""


class _Parser(argparse.ArgumentParser):
    """A parser whose error is one line, whatever the arguments contain."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, _LONGEST))


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser of a command's words, with the command's documentation."""
    return _Parser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs of a package: one module each; the directory is the registry. `command` is their common prefix.

    A module's name has a `_` for each `-` of the verb's name. `shared` are modules of the package that are not verbs,
    with arguments that several verbs share.
    """

    package: str
    command: str
    shared: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """The names of the verbs, sorted."""
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
        result = parser(f"{self.command} {name}", module.__doc__)
        module.arguments(result)
        return result

    def summary(self, name: str) -> str:
        """The first line of a verb's docstring, without its stop."""
        return self.verb(name).__doc__.partition("\n")[0].rstrip(".")

    def run(self, argv: Sequence[str]) -> int:
        """Run one verb with its arguments, and return its exit status."""
        name, *rest = argv
        if name not in self.names():
            raise Error(f"no such verb: {printable(name)}", did_you_mean(name, self.names()), USAGE)
        return self.verb(name).main(self.parser(name).parse_args(rest))


def main(carry_out: Callable[[list[str]], int], argv: list[str] | None = None, program: str = "debian-cloud") -> int:
    """Run a command line of a program; the exit status is 0 done, 1 verification or policy failed, 2 wrong use."""
    _open_what_is_closed()
    with (
        contextlib.redirect_stdout(printed(sys.stdout)),
        contextlib.redirect_stderr(printed(sys.stderr)),
    ):
        return _main(carry_out, sys.argv[1:] if argv is None else argv, program)


def _open_what_is_closed() -> None:
    """Open /dev/null as each closed standard stream: otherwise the next opened file would get its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - it takes no name
    os.close(descriptor)
    # Python has None for closed streams; these stay open as long as the process runs.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _main(carry_out: Callable[[list[str]], int], argv: list[str], program: str) -> int:
    try:
        return _run(carry_out, argv)
    except Error as error:
        print(f"{program}: error: {paragraph(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"{program}: hint: {paragraph(error.hint)}", file=sys.stderr)
        return error.status
    except signals.Ended as ended:
        print(f"{program}: terminated", file=sys.stderr)
        return _SIGNALLED + int(ended.args[0])
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
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
        if error.errno in _FULL:
            _forget_output()
        raise failure(error) from error
    return status


def failure(error: OSError) -> Error:
    """Return the error that the user sees when a system call has failed."""
    if error.errno in _FULL:
        # If the error is about a copy, the second name is the file that was written.
        name = error.filename2 or error.filename
        where = f": {name} cannot be written" if name else ""
        return Error(f"the disk is full{where}", "free some space, and run it again")
    # Such as a name that is too long, a failing disk, or a file of another user.
    where = f"{error.filename}: " if error.filename else ""
    hint = "check that the file is the right one, and complete"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "choose another place, or run it as a user who may read and write that one"
    return Error(f"{where}{error.strerror or error}", hint)


def _forget_output() -> None:
    """Discard output that could not be written: Python would try again at its end, with a message of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
