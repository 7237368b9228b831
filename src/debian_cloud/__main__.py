# SPDX-License-Identifier: GPL-3.0-or-later
"""Pick the verb, catch Error and what any verb may meet: an interruption, a closed pipe, a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from . import cli
from .errors import Error
from .printable import paragraph, printed


def main(argv: list[str] | None = None) -> int:
    """Run `debian-cloud VERB …`; 0 done, 1 no (verification or policy failed), 2 wrong use."""
    # A stream that was closed before we began is None, and print(…) does nothing.
    with (
        contextlib.redirect_stdout(sys.stdout and printed(sys.stdout)),
        contextlib.redirect_stderr(sys.stderr and printed(sys.stderr)),
    ):
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    try:
        return _run(argv)
    except Error as error:
        print(f"debian-cloud: error: {paragraph(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"debian-cloud: hint: {paragraph(error.hint)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("debian-cloud: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _forget_output()
        return 1


def _run(argv: list[str]) -> int:
    try:
        status = cli.run(argv)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _forget_output()
        where = f": nothing more can be written to {error.filename}" if error.filename else ""
        raise Error(f"the disk is full{where}", "free some space, and run it again") from error
    return status


def _forget_output() -> None:
    """Let what could not be written go: Python would try again at its end, and say so in words of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
