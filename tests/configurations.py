# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive of small configurations, and an uploader's key."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from debian_cloud.image.binary import File
from debian_cloud.text import deb822
from tests import throwaway
from tests.archive.conftest import Key, make_key
from tests.throwaway import Archive

FIELDS: Final = {
    "Image-Size": "1G",
    "Image-Format": "raw qcow2",
    "Image-Firmware": "bios uefi",
    "Image-Memory": "512M",
    "Image-First-Boot": "cloud-init",
}
ONE_IMAGE: Final = dict.fromkeys(("Provides", "Conflicts", "Replaces"), "debian-cloud-config")
OVERRIDES: Final = """\
# Fields of our own.
unknown-field Image-*
# Closed to others, as netplan wants it.
non-standard-file-perm 0600 != 0644 [usr/lib/netplan/*]
# The unit is another package's.
service-file-is-not-a-file [usr/lib/systemd/system/*]
"""
POSTINST: Final = """\
#!/bin/sh
set -e
# Automatically added by dh_installsystemd/13.11.4
deb-systemd-helper enable old.service
# End automatically added section
echo configured
exit 0
"""


def deb(folder: Path, name: str, fields: Mapping[str, str], files: tuple[File, ...] = (), **control: str) -> Path:
    """Build a binary package debian-cloud-config-NAME in a directory; `control` are control files."""
    package = f"debian-cloud-config-{name}"
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    stanza = {
        "Package": package,
        "Source": "debian-cloud",
        "Version": "1.0~deb13u1",
        "Architecture": "amd64",
        "Maintainer": "Test <test@example.org>",
        "Section": "admin",
        "Priority": "optional",
        **fields,
    } | {"Description": fields.get("Description", f"Debian image configuration: {name}\n Some words about it.")}
    (tree / "DEBIAN" / "control").write_text(deb822.render((f, v) for f, v in stanza.items() if v))
    conffiles = "".join(f"{file.path}\n" for file in files if file.path.startswith("/etc/") and not file.link)
    for script, text in {"conffiles": conffiles, **control}.items():
        if text:
            (tree / "DEBIAN" / script).write_text(text)
            (tree / "DEBIAN" / script).chmod(0o644 if script in ("conffiles", "triggers", "templates") else 0o755)
    for file in files:
        path = tree / file.path[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            path.symlink_to(file.link)
        else:
            path.write_bytes(file.content)
            path.chmod(file.mode)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, folder], stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(tree)
    return folder / f"{package}_{stanza['Version']}_{stanza['Architecture']}.deb"


GENERIC_FILES: Final = (
    File("/etc/default/grub.d/60_generic.cfg", b"GRUB_TIMEOUT=1\n"),
    File("/usr/lib/netplan/50-generic.yaml", b"network: {}\n", 0o600),
    File("/usr/lib/systemd/system/a.target.wants/b.service", link="../b.service"),
    File("/usr/share/doc/debian-cloud-config-generic/copyright", b"the old one's"),
    File("/usr/share/lintian/overrides/debian-cloud-config-generic", OVERRIDES.encode()),
)


@dataclass(frozen=True)
class Configurations(Archive):
    """A throw-away archive with small configurations, and a key that may upload to it."""

    uploader: Key


@pytest.fixture(scope="session")
def configurations() -> Iterator[Configurations]:
    """An archive with the layer `common` and the images `generic` and `ec2`."""
    with throwaway.folder() as top:
        uploader = make_key(top, "uploader")
        image = {**FIELDS, **ONE_IMAGE, "Depends": "debian-cloud-config-common (= 1.0~deb13u1), netbase | tzdata"}
        image["Recommends"] = "nano, less"
        own = {"postinst": POSTINST, "triggers": "interest-noawait /etc/default/grub.d\nactivate-noawait ldconfig\n"}
        debs = [
            deb(top, "common", {"Depends": "base-files"}),
            deb(top, "generic", image, GENERIC_FILES, **own),
            deb(top, "ec2", image),
        ]
        yield Configurations(throwaway.archive(top, *debs, uploader=uploader.public).folder, uploader)
