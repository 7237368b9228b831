# SPDX-License-Identifier: GPL-3.0-or-later
"""Pick the verb, catch Error and what any verb may meet: an interruption, a closed pipe, a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import Final

from debian_cloud import cli
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.text.printable import paragraph, printed

_LAST: Final = 2
"""The number of standard error, the last of the three streams that every program has."""


_SIGNALLED: Final = 128
"""What a shell adds to the number of a signal that ended a command."""


def main(argv: list[str] | None = None) -> int:
    """Run `debian-cloud VERB …`; 0 done, 1 no (verification or policy failed), 2 wrong use."""
    _open_what_is_closed()
    with (
        contextlib.redirect_stdout(printed(sys.stdout)),
        contextlib.redirect_stderr(printed(sys.stderr)),
    ):
        return _main(sys.argv[1:] if argv is None else argv)


def _open_what_is_closed() -> None:
    """Let a stream that was closed before we began lead nowhere: else the next file would have its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - it takes no name
    os.close(descriptor)
    # Python has None for them; they are open for as long as we live.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _main(argv: list[str]) -> int:
    try:
        return _run(argv)
    except Error as error:
        print(f"debian-cloud: error: {paragraph(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"debian-cloud: hint: {paragraph(error.hint)}", file=sys.stderr)
        return error.status
    except run.Ended as ended:
        print("debian-cloud: terminated", file=sys.stderr)
        return _SIGNALLED + int(ended.args[0])
    except KeyboardInterrupt:
        print("debian-cloud: interrupted", file=sys.stderr)
        return _SIGNALLED + signal.SIGINT
    except BrokenPipeError:
        _forget_output()
        return 1


def _run(argv: list[str]) -> int:
    try:
        status = cli.run(argv)
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


if __name__ == "__main__":
    sys.exit(main())
