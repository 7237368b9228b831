# SPDX-License-Identifier: GPL-3.0-or-later
"""List the targets on which instances can be started.

`local` is this machine, and is always there. Others are in files NAME.target, in
~/.config/debian-cloud/targets.d and /etc/debian-cloud/targets.d, with one stanza each:
Target, which is NAME, Driver, and the driver's fields. No file has a password: a driver
finds it where its provider's own tools do.

The driver qemu has the field Directory: the absolute path of the directory where
instances are, instead of ~/.local/state/debian-cloud.

The driver libvirt has the fields Uri (qemu:///session, qemu:///system or
qemu+ssh://HOST/system), Pool (default: debian-cloud, which is made, for a session; else default)
and Network (default: default; not for a session).

The driver ec2 has Region and Profile, as the provider's own tools; Instance-Type, Subnet
and Security-Groups for instances; and Ssh-From, networks such as 203.0.113.0/24 from which
SSH is let in: without it, from nowhere. For another provider with EC2's interface there are
Endpoint, Ebs-Endpoint, Ssm-Endpoint and Sts-Endpoint, addresses of its services.

    debian-cloud targets
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.errors import FAILED, Error
from debian_cloud.host.command import failure
from debian_cloud.machines import drivers, target
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    status = 0
    rows: list[dict[str, str]] = []
    known = target.read(warn)
    for sentence in known.refused:
        warn(sentence)
        status = FAILED
    for one in known.targets:
        try:
            about = drivers.provider(one).about()
        except (Error, OSError) as error:
            warn((error if isinstance(error, Error) else failure(error)).message)
            about, status = "cannot be used", FAILED
        rows.append({"target": one.name, "driver": one.driver, "about": about})
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['target']:<16} {printable(row['driver']):<10} {printable(row['about'])}")
    return status
