# SPDX-License-Identifier: GPL-3.0-or-later
"""Log in to an instance, or run a command on it.

Options come before NAME, for all that follows is the command.
It waits until the instance answers. Only the host key that the instance was given is
accepted, and nothing of ~/.ssh is read. The exit status is that of ssh(1): the command's,
or 255 if the connection failed.

    debian-cloud ssh try
    debian-cloud ssh try uptime
"""

from __future__ import annotations

import argparse
import sys

from debian_cloud.cli.machines import options
from debian_cloud.host import run
from debian_cloud.machines import running, ssh


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_instance(parser)
    parser.add_argument(
        *("--timeout",),
        type=int,
        default=running.PATIENCE,
        metavar="SECONDS",
        help="how long to wait for an answer (default: %(default)s)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="a command, and its arguments")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    provider, instance = options.found(args)
    login = running.wait(
        provider,
        instance.name,
        args.timeout,
        lambda: print(f"debian-cloud: waiting until {instance.name} answers", file=sys.stderr),
    )
    run.become(ssh.argv(login, args.command))
