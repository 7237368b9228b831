# SPDX-License-Identifier: GPL-3.0-or-later
"""Pick the verb, catch Error, nothing else."""

from __future__ import annotations

import sys

from . import cli
from .errors import Error


def main(argv: list[str] | None = None) -> int:
    """Run `debian-cloud VERB …`; 0 done, 1 no (verification or policy failed), 2 wrong use."""
    try:
        return cli.run(sys.argv[1:] if argv is None else argv)
    except Error as error:
        print(f"debian-cloud: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"debian-cloud: hint: {error.hint}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("debian-cloud: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
