# SPDX-License-Identifier: GPL-3.0-or-later
"""Have one peer make its disk, in a process of its own.

usage: python3 -m bench.one PEER FOLDER

FOLDER has asked.json: the packages and the mirror. The path of the disk goes to FOLDER/disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import peers
from bench.mirror import Mirror

if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    asked = json.loads((folder / "asked.json").read_text())
    try:
        disk = peers.find(name).build(folder, asked["packages"], Mirror(**asked["mirror"]))
    except subprocess.CalledProcessError as error:
        # What the tool has said is the reason; where it was called is none.
        sys.exit(f"{Path(error.cmd[0]).name} failed with exit status {error.returncode}")
    (folder / "disk").write_text(str(disk))
