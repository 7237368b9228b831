# SPDX-License-Identifier: GPL-3.0-or-later
"""Start an instance of an image: here, in a QEMU of your own, or on another target.

IMAGE is a configuration, whose current image is taken; or one image as
SUITE/CONFIG/ARCH/SERIAL; or the file of an image, with its .buildinfo and record beside
it or in its proof (`build`, `fetch --proof`). An image comes from the archive that the
user configured, or from those that this machine's apt knows, and is verified by their
signed index. A file must be signed, or --unsigned be given; one whose image was
withdrawn is refused without --anyway.

On the target `local`, which is this machine, no root and no daemon are needed: an
instance is a QEMU process of this user. Its disk is an overlay of the image, and stays
until `terminate`; QEMU goes on running when this command has ended.
Without acceleration by the hardware the first boot takes minutes. As other programs of yours,
it reaches the network, and services of this machine (as 10.0.2.2).

The host key of the instance is made before it starts, and `debian-cloud ssh` accepts no other;
in EC2, the instance makes it, and it is read from the console, which only the provider passes on.
It lets in a key of this program's own, and those of --key. An image that reads
cloud-init's NoCloud gets a seed, and lets in its own user; on `local`, another image with an SSH
server gets the key for root from the firmware, and no user-data. An image without an SSH server has a console.

On another target (`debian-cloud targets`), account and region are printed before anything is
made. If the command fails or is interrupted, its instances are ended again; the image stays there
until `deregister`, and so do persistent disks.

With --expires, the instance powers itself off at that time, whether this machine can be
reached or not. A disk of --persistent-disk outlives all instances; in the guest it is
/dev/disk/by-id/virtio-NAME, and in EC2 nvme-Amazon_Elastic_Block_Store_ and its id there.

    debian-cloud run generic --name try --wait
    debian-cloud ssh try
    debian-cloud terminate try
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.cli import warn
from debian_cloud.cli.machines import options
from debian_cloud.host import files
from debian_cloud.image import config
from debian_cloud.machines import drivers, running, spec, target
from debian_cloud.machines.spec import MachineSpec
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

    from debian_cloud.machines.instance import Instance
    from debian_cloud.machines.source import Source


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    options.add_image(parser)
    options.add_target(parser, target.LOCAL.name)
    parser.add_argument("--name", default="", help="its name (default: the configuration's, and a number)")
    parser.add_argument(
        "--count",
        default="1",
        metavar="N[:M]",
        help="start M instances, or as many as there can be, but at least N; their names are NAME-1 to NAME-M",
    )
    group = parser.add_argument_group("the machine")
    group.add_argument(
        "--memory", default="", metavar="SIZE", help="its memory (default: 1G, or what the image needs)"
    )
    group.add_argument("--cpus", type=int, default=0, metavar="N", help="its processors (default: at most 2)")
    group.add_argument("--disk", default="", metavar="SIZE", help="the size of its disk (default: the image's)")
    group.add_argument(
        *("--boot",),
        choices=("bios", "uefi", "secure"),
        default="",
        help="how it boots; secure: UEFI with Secure Boot (default: bios, or uefi if the image needs it)",
    )
    group.add_argument(
        "--persistent-disk",
        action="append",
        default=[],
        metavar="NAME[:SIZE]",
        help="a disk that outlives instances, made if it has a SIZE and does not exist; may be given several times",
    )
    group = parser.add_argument_group("what it is told")
    group.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE", help="a public SSH key to let in, too"
    )
    group.add_argument("--user-data", type=Path, metavar="FILE", help="user-data for cloud-init, at most 16 KiB")
    group = parser.add_argument_group("its end")
    group.add_argument("--expires", default="", metavar="TIME", help="power off after this time: 90m, 8h, 3d")
    group.add_argument("--throw-away", action="store_true", help="remove it when it has powered off")
    parser.add_argument("--wait", action="store_true", help="wait until it can be logged in to")
    parser.add_argument(
        *("--timeout",),
        type=int,
        default=running.PATIENCE,
        metavar="SECONDS",
        help="with --wait, how long (default: %(default)s); the instance goes on running",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, and start nothing")
    parser.add_argument("--json", action="store_true", help="print the instances as JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    least, most = spec.count(args.count)
    where = target.find(args.on or target.LOCAL.name, warn)
    found = options.source(args)
    planned = running.planned(where, found, _spec(args, found), least, most)
    provider = drivers.provider(where)
    _say(f"{found.record.stem} on {where.name}: {provider.about()}")
    if args.dry_run:
        print(f"would start {', '.join(planned.names)}")
        return 0
    started = running.start(planned)
    if started.reason:
        warn(f"{len(started.instances)} of {most} instances were started: {started.reason}")
    if args.json:
        print(options.as_json(started.instances))
    else:
        for instance in started.instances:
            _next(instance, found.record.machine.user)
    # What exists has been said, if this is interrupted.
    for instance in started.instances:
        # One that starts has an address later.
        if args.wait and (instance.login or instance.state == "starting"):
            sys.stdout.flush()
            running.wait(
                provider, instance.name, args.timeout, partial(_say, f"waiting until {instance.name} answers")
            )
            _say(f"{instance.name} answers")
    return 0


def _spec(args: argparse.Namespace, found: Source) -> MachineSpec:
    def size(text: str, option: str) -> int:
        return config.amount(text, option) if text else 0

    def disk(text: str) -> spec.Disk:
        name, _, wanted = text.partition(":")
        return spec.disk(name, size(wanted, "--persistent-disk"))

    return MachineSpec(
        name=args.name,
        image=found.record,
        memory=size(args.memory, "--memory"),
        cpus=spec.cpus(args.cpus),
        disk=size(args.disk, "--disk"),
        boot=args.boot,
        keys=tuple(spec.key(files.text(path, 2**16), printable(str(path))) for path in args.key),
        user_data=_user_data(args.user_data) if args.user_data else "",
        expires=spec.expiry(args.expires, int(time.time())) if args.expires else 0,
        throw_away=args.throw_away,
        disks=tuple(disk(text) for text in args.persistent_disk),
    )


def _user_data(path: Path) -> str:
    return spec.user_data(files.text(path, 16 * spec.LARGEST_USER_DATA), printable(str(path)))


def _say(text: str) -> None:
    print(f"debian-cloud: {text}", file=sys.stderr)


def _next(instance: Instance, user: str) -> None:
    """Print what to type next."""
    what = printable(f"{instance.image} for {instance.architecture}")
    print(f"{instance.name} is {instance.state}: {what} on {instance.target}")
    on = f"--on {instance.target} " if instance.target != target.LOCAL.name else ""
    who = instance.login.user if instance.login else user if instance.state == "starting" else ""
    if who:
        print(f"  log in    debian-cloud ssh {on}{instance.name}    (as {printable(who)})")
    print(f"  console   debian-cloud console {on}{instance.name}")
    print(f"  end it    debian-cloud terminate {on}{instance.name}")
