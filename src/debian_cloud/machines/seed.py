# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance is told at its first boot, without a server: by a seed, or by the firmware. Pure.

A seed is a file system labelled CIDATA, from which cloud-init's NoCloud reads. The user's user-data goes in
unchanged; what this program adds is meta-data and vendor-data, which the user's takes precedence over.

An image whose cloud-init reads only its own cloud's metadata gets credentials of systemd from the firmware instead
(systemd.system-credentials(7), by SMBIOS type 11): a key for root, and files that systemd-tmpfiles(8) writes.

Both have the instance's host key, so that it is known before the first login.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from debian_cloud.machines.instance import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOCLOUD: Final = "NoCloud"
"""The datasource that reads a seed."""
SCRIPT: Final = "text/x-shellscript"
"""The kind of a part that is a script."""
LABEL: Final = "CIDATA"
"""The label of its file system (cloud-init, NoCloud)."""

_HOST_KEY: Final = "/etc/ssh/ssh_host_ed25519_key"
_KEEP_KEY: Final = "/etc/cloud/cloud.cfg.d/99_debian-cloud-machines.cfg"
_UNIT: Final = "/etc/systemd/system/debian-cloud-expiry"


@dataclass(frozen=True, slots=True)
class Told:
    """What an instance is told; `host_private` and `host_public` are its host key, as files of sshd(8) have it."""

    name: str
    id: str
    keys: tuple[str, ...]
    host_private: str
    host_public: str
    user_data: str = ""
    expires: int = NEVER


def nocloud(told: Told) -> Mapping[str, str]:
    """The files of a seed, by name."""
    meta = {"instance-id": told.id, "local-hostname": told.name, "public-keys": [*told.keys]}
    ours = {"ssh_keys": {"ed25519_private": told.host_private, "ed25519_public": told.host_public}}
    # JSON is YAML.
    vendor = f"#cloud-config\n{json.dumps(ours)}\n"
    return {
        "meta-data": json.dumps(meta) + "\n",
        "user-data": told.user_data or "#cloud-config\n{}\n",
        "vendor-data": vendor
        if told.expires == NEVER
        else multipart((("text/cloud-config", vendor), (SCRIPT, expiry_script(told.expires)))),
    }


def multipart(parts: Sequence[tuple[str, str]]) -> str:
    """User-data of several parts, each with its kind (cloud-init, MIME multi-part archive)."""
    # A part may have parts itself, with a boundary of its own.
    boundary = f"==debian-cloud-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}=="
    body = "".join(
        f"--{boundary}\nContent-Type: {kind}; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
        f"{base64.encodebytes(text.encode()).decode('ascii')}\n"
        for kind, text in parts
    )
    return f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n{body}--{boundary}--\n'


def expiry_script(expires: int) -> str:
    """A script that has the instance power itself off at a time; root of the instance runs it, any number of times.

    The timer is the guest's, so it works without this program and its machine's clock.
    """
    when = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"""#!/bin/sh
set -eu
cat >{_UNIT}.service <<'END'
[Unit]
Description=power off: this instance has expired
[Service]
Type=oneshot
ExecStart=systemctl poweroff
END
cat >{_UNIT}.timer <<'END'
[Unit]
Description=the end of this instance
[Timer]
OnCalendar={when}
AccuracySec=1s
[Install]
WantedBy=timers.target
END
systemctl daemon-reload
systemctl enable --quiet debian-cloud-expiry.timer
systemctl restart debian-cloud-expiry.timer
"""


def credentials(told: Told) -> tuple[str, ...]:
    """Texts for SMBIOS type 11, for an image that reads no seed: root is let in by the keys."""
    files = (
        f"f+~ {_HOST_KEY} 0600 root root - {_base64(told.host_private)}",
        f"f+~ {_HOST_KEY}.pub 0644 root root - {_base64(told.host_public)}",
        # cloud-init makes all host keys anew at the first boot, unless it is told not to.
        f"f+~ {_KEEP_KEY} 0644 root root - {_base64('ssh_deletekeys: false' + chr(10))}",
    )
    found = {
        "ssh.authorized_keys.root": "".join(f"{key}\n" for key in told.keys),
        "tmpfiles.extra": "".join(f"{line}\n" for line in files),
    }
    return tuple(f"io.systemd.credential.binary:{name}={_base64(text)}" for name, text in found.items())


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
