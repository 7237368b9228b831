# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates for the tests' https servers."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certificate(folder: Path, host: str, days: int) -> None:
    """Make fullchain.pem, a certificate of a host that it signs itself, and its key, privkey.pem, in a directory."""
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    name = ("-days", str(days), "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")
    out = ("-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem")
    subprocess.run([*made, *name, *out], check=True, capture_output=True)
