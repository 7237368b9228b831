# SPDX-License-Identifier: GPL-3.0-or-later
"""Use the serial console of an instance, or print what it wrote.

On a terminal, the console is connected until Ctrl-] is typed; what the instance sends is
passed on as it is, as on any console. One user at a time can be connected. With --log, or if
standard input or output is no terminal, the last lines that it wrote are printed, as text;
in EC2 there is no more than that.

    debian-cloud console try
    debian-cloud console try --log
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from debian_cloud.cli.machines import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.machines import terminal
from debian_cloud.text.printable import plain, printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_instance(parser)
    parser.add_argument("--log", action="store_true", help="print the last lines")
    parser.add_argument("--lines", type=int, default=200, metavar="N", help="how many (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    provider, instance = options.found(args)
    console = provider.console(instance.name)
    passive = instance.state != "stopped" and not console.command and not console.socket
    if args.log or passive or not (sys.stdin.isatty() and sys.stdout.isatty()):
        if args.lines < 1:
            raise Error(f"--lines {args.lines} prints nothing", "give 1 or more", USAGE)
        for line in console.log.decode("utf-8", "replace").rstrip("\n").split("\n")[-args.lines :]:
            print(printable(plain(line)))
        return 0
    if console.command:
        run.become(console.command)
    if not console.socket:
        raise Error(
            f"{instance.name} is {instance.state}, so it has no console",
            f"print what it wrote with --log, or start it: debian-cloud start {instance.name}",
            USAGE,
        )
    terminal.connect(
        console.socket,
        lambda: print(f"debian-cloud: connected to {instance.name}; Ctrl-] ends this", file=sys.stderr),
    )
    return 0
