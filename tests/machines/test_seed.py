# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance is told at its first boot."""

from __future__ import annotations

import base64
import email
import importlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

from debian_cloud.machines import seed
from debian_cloud.machines.seed import Told

yaml = importlib.import_module("yaml")  # Debian's python3-yaml has no types

TOLD = Told(
    "try", "try-1a2b", ("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"), "PRIVATE\nKEY\n", "ssh-ed25519 C try\n"
)


def test_a_seed_has_keys_and_the_host_key() -> None:
    found = seed.nocloud(TOLD)
    assert {*found} == {"meta-data", "user-data", "vendor-data"}
    assert yaml.safe_load(found["meta-data"]) == {
        "instance-id": "try-1a2b",
        "local-hostname": "try",
        "public-keys": [*TOLD.keys],
    }
    assert found["vendor-data"].startswith("#cloud-config\n")
    assert yaml.safe_load(found["vendor-data"]) == {
        "ssh_keys": {"ed25519_private": "PRIVATE\nKEY\n", "ed25519_public": "ssh-ed25519 C try\n"}
    }
    assert found["user-data"].startswith("#cloud-config\n")


def test_the_user_s_own_data_stay_as_they_are() -> None:
    text = "#!/bin/sh\necho '\u00e4' >/x\n"
    assert seed.nocloud(replace(TOLD, user_data=text))["user-data"] == text


def test_an_instance_that_expires_has_a_timer_besides() -> None:
    text = seed.nocloud(replace(TOLD, expires=1796079594))["vendor-data"]
    parts = [part for part in email.message_from_string(text).walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in parts] == ["text/cloud-config", "text/x-shellscript"]
    config, script = ((part.get_payload(decode=True) or b"") for part in parts)
    assert isinstance(config, bytes)
    assert isinstance(script, bytes)
    assert config.decode() == seed.nocloud(TOLD)["vendor-data"]
    assert b"OnCalendar=2026-11-30 22:59:54 UTC\n" in script


def test_the_timer_is_what_systemd_reads(tmp_path: Path) -> None:
    script = seed.expiry_script(1796079594).replace("/etc/systemd/system", str(tmp_path))
    (tmp_path / "systemctl").write_text('#!/bin/sh\necho "$@" >>"$0.log"\n')
    (tmp_path / "systemctl").chmod(0o755)
    for _ in range(2):
        subprocess.run(["sh", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    units = [tmp_path / f"debian-cloud-expiry.{kind}" for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert "debian-cloud-expiry" not in done.stderr.replace("debian-cloud-expiry.service: Command systemctl", "")
    assert (tmp_path / "systemctl.log").read_text().count("restart debian-cloud-expiry.timer") == 2


def decoded(text: str, name: str) -> str:
    head = f"io.systemd.credential.binary:{name}="
    assert text.startswith(head)
    return base64.b64decode(text.removeprefix(head), validate=True).decode()


def test_the_firmware_passes_root_s_keys_and_the_host_key() -> None:
    keys, files = seed.credentials(TOLD)
    assert decoded(keys, "ssh.authorized_keys.root") == "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
    lines = [line.split(" ") for line in decoded(files, "tmpfiles.extra").splitlines()]
    found = {path: (kind, mode, base64.b64decode(text).decode()) for kind, path, mode, _, _, _, text in lines}
    assert found["/etc/ssh/ssh_host_ed25519_key"] == ("f+~", "0600", "PRIVATE\nKEY\n")
    assert found["/etc/ssh/ssh_host_ed25519_key.pub"] == ("f+~", "0644", "ssh-ed25519 C try\n")
    assert found["/etc/cloud/cloud.cfg.d/99_debian-cloud-machines.cfg"][2] == "ssh_deletekeys: false\n"


def test_systemd_writes_the_files_that_the_firmware_passes(tmp_path: Path) -> None:
    (tmp_path / "tmpfiles.d").mkdir()
    text = decoded(seed.credentials(TOLD)[1], "tmpfiles.extra")
    (tmp_path / "tmpfiles.d/extra.conf").write_text(
        text.replace(" /etc/", f" {tmp_path}/etc/").replace("root root", "- -")
    )
    subprocess.run(["systemd-tmpfiles", "--create", tmp_path / "tmpfiles.d/extra.conf"], check=True)
    assert (tmp_path / "etc/ssh/ssh_host_ed25519_key").read_text() == "PRIVATE\nKEY\n"


def test_no_value_can_leave_its_place() -> None:
    found = seed.nocloud(replace(TOLD, keys=('ssh-ed25519 AAAA "]\nusers: [root]',)))
    assert json.loads(found["meta-data"])["public-keys"] == ['ssh-ed25519 AAAA "]\nusers: [root]']
