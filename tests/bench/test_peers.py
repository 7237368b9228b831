# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers: what each must have, and their scripts."""

from __future__ import annotations

import subprocess

import pytest

from bench import peers
from bench.peers import debos, fai


def test_each_peer_is_one_file() -> None:
    assert peers.names() == ("debos", "fai", "mkosi", "mmdebstrap", "vmdb2")
    for name in peers.names():
        peer = peers.find(name)
        assert peer.NAME
        assert peer.PACKAGE.split()
        assert callable(peer.version)
        assert callable(peer.build)


def test_what_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(LookupError, match="apt-get install no-such-package"):
        peers.installed("no-such-package")


@pytest.mark.parametrize("text", [peers.BOOT, fai._BOOT, debos._BOOT], ids=["boot", "fai", "debos"])
def test_a_script_is_clean(text: str) -> None:
    done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
