# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the description of a machine for an image, as `virsh define` takes it.

IMAGE is named as for `run`. What the machine must have comes from the image's signed
record: architecture, firmware, memory. Its disk is --disk, a copy of the image that the
machine may write to; the default is the path that libvirt's own pool would give it.
--seed is a file system labelled CIDATA for cloud-init, such as cloud-localds(1) makes. The machine is accelerated
by the hardware, unless --emulated is given or it has another architecture than this machine.

    debian-cloud domain generic --name try >try.xml
    virsh define try.xml
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.cli.machines import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.image import config
from debian_cloud.machines import domain, spec
from debian_cloud.machines.qemu import command
from debian_cloud.machines.spec import MachineSpec
from debian_cloud.packages import origin

if TYPE_CHECKING:
    import argparse

_POOL: Final = "/var/lib/libvirt/images"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_image(parser)
    parser.add_argument("--name", default="", help="its name (default: the configuration's)")
    parser.add_argument(
        "--memory", default="", metavar="SIZE", help="its memory (default: 1G, or what the image needs)"
    )
    parser.add_argument("--cpus", type=int, default=0, metavar="N", help="its processors (default: 1)")
    parser.add_argument(
        "--boot", choices=("bios", "uefi", "secure"), default="", help="how it boots; secure: UEFI with Secure Boot"
    )
    parser.add_argument("--disk", default="", metavar="FILE", help=f"its disk (default: below {_POOL})")
    parser.add_argument("--seed", default="", metavar="FILE", help="a second disk, with its seed")
    parser.add_argument("--emulated", action="store_true", help="do without acceleration")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    record = options.source(args).record
    wanted = MachineSpec(
        name=spec.name(args.name) if args.name else spec.named(record.id.config, set()),
        image=record,
        memory=config.amount(args.memory, "--memory") if args.memory else 0,
        cpus=spec.cpus(args.cpus),
        boot=args.boot,
    )
    if record.format not in command.bases():
        raise Error(
            f"QEMU does not read {record.format}, in which {record.stem} is published",
            "use another configuration, or build it with --format qcow2",
            USAGE,
        )
    disk = str(Path(args.disk).absolute()) if args.disk else f"{_POOL}/{record.name}"
    native = record.id.architecture == origin.architecture("")
    print(
        domain.describe(
            spec.check(wanted),
            disk,
            command.driver(record.format),
            {"image": record.stem},
            seed=str(Path(args.seed).absolute()) if args.seed else "",
            accelerated=native and not args.emulated,
        ),
        end="",
    )
    return 0
