# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine in a network of its own, where EC2's metadata service answers at its link-local address: no root needed.

    unshare --user --map-root-user --net /usr/bin/python3 -m tests.built.metadata IMAGE DIRECTORY SECONDS

Nothing but this process can be reached there: QEMU's user network connects to it for the guest. What commands on the
machine wrote is printed as JSON. The service is a stand-in for Amazon's, and accepts IMDSv2 alone, as it does.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.built import qemu

ADDRESS: Final = "169.254.169.254"
INSTANCE: Final = "i-0123456789abcdef0"
_UUID: Final = "ec2e1916-9099-7caf-fd21-012345abcdef"
"""By its beginning, cloud-init knows that this is EC2."""
_MAC: Final = "02:00:00:12:34:56"
_PORT: Final = 2222
_TOKEN: Final = secrets.token_hex(16)
COMMANDS: Final = {
    "user": ("id", "-un"),
    "datasource": ("cat", "/run/cloud-init/result.json"),
    "instance": ("cat", "/run/cloud-init/.instance-id"),
    "status": ("cloud-init", "status", "--wait", "--long", "||", "true"),
    "asked": ("cat", "/run/of-user-data"),
}
"""What is printed -> the command for it."""


def tree(key: str) -> dict[str, Any]:
    """What the service says, as a tree of directories."""
    interface = {
        "device-number": "0",
        "interface-id": "eni-1",
        "local-ipv4s": "10.0.2.15",
        "mac": _MAC,
        "subnet-ipv4-cidr-block": "10.0.2.0/24",
    }
    meta = {
        "ami-id": "ami-1",
        "hostname": "ip-10-0-2-15",
        "instance-id": INSTANCE,
        "instance-type": "t3.micro",
        "local-hostname": "ip-10-0-2-15",
        "local-ipv4": "10.0.2.15",
        "mac": _MAC,
        "network": {"interfaces": {"macs": {_MAC: interface}}},
        "placement": {"availability-zone": "eu-one-1a", "region": "eu-one-1"},
        "public-keys": {"0": {"openssh-key": key}},
    }
    document = json.dumps({"instanceId": INSTANCE, "region": "eu-one-1", "imageId": "ami-1"})
    user = "#cloud-config\nruncmd:\n- [sh, -c, 'echo it was read >/run/of-user-data']\n"
    return {"meta-data": meta, "user-data": user, "dynamic": {"instance-identity": {"document": document}}}


class Service(BaseHTTPRequestHandler):
    """One request to the metadata service."""

    found: dict[str, Any]

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_PUT(self) -> None:
        """Give a token."""
        self._send(200 if self.path == "/latest/api/token" else 404, _TOKEN)

    def do_GET(self) -> None:
        """One value, or the names in a directory."""
        if self.headers.get("X-aws-ec2-metadata-token") != _TOKEN:
            self._send(401, "")
            return
        _, _version, *parts = self.path.split("/")
        here: Any = self.found
        for part in filter(None, parts):
            here = here.get(part) if isinstance(here, dict) else None
        if isinstance(here, dict):
            names = (f"{name}/" if isinstance(value, dict) else name for name, value in here.items())
            here = "\n".join(names) if "public-keys" not in parts[-2:] else "0=key"
        self._send(404 if here is None else 200, here or "")

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Bind, without asking a name server for the address."""
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = ADDRESS, 80


def _machine(image: Path, folder: Path) -> subprocess.Popen[bytes]:
    disk = folder / "disk.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image), str(disk)]
    subprocess.run(command, check=True)
    forward = f"user,model=virtio-net-pci,mac={_MAC},hostfwd=tcp:127.0.0.1:{_PORT}-:22"
    return subprocess.Popen(
        [
            *("qemu-system-x86_64", "-M", "q35", *qemu.processor(), "-smp", "2", "-m", "1024"),
            *("-display", "none", "-no-reboot", "-serial", f"file:{folder / 'console'}", "-uuid", _UUID),
            *("-smbios", f"type=1,manufacturer=Amazon EC2,serial={_UUID},uuid={_UUID}"),
            *("-drive", f"file={disk},format=qcow2,if=virtio", "-nic", forward, "-device", "virtio-rng-pci"),
        ],
        stdin=subprocess.DEVNULL,
    )


def _answer(key: Path, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=30")
    words = (*(word for option in options for word in ("-o", option)), "debian@127.0.0.1", "--", *words)
    argv = ["ssh", "-F", "none", "-i", str(key), "-p", str(_PORT), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)


def main(image: str, directory: str, seconds: str) -> int:
    """Boot the machine, and print what its commands wrote."""
    folder = Path(directory)
    for words in (("link", "set", "lo", "up"), ("address", "add", f"{ADDRESS}/32", "dev", "lo")):
        subprocess.run(["ip", *words], check=True)
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    Service.found = tree(key.with_suffix(".pub").read_text())
    server = _Server((ADDRESS, 80), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    machine = _machine(Path(image), folder)
    try:
        end = time.monotonic() + int(seconds)
        while (done := _answer(key, COMMANDS["status"])).returncode and time.monotonic() < end:
            assert machine.poll() is None, "QEMU has ended"
            time.sleep(2)
        assert done.returncode == 0, done.stderr
        print(json.dumps({name: _answer(key, words).stdout for name, words in COMMANDS.items()}))
    finally:
        machine.kill()
        machine.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
