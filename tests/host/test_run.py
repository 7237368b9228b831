# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps of a plan: the reason of a failure, and how much of a step's output is read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from debian_cloud import plan as plans
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.host.progress import Progress
from tests import bounds


def test_a_step_without_its_namespace_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1"
    monkeypatch.setattr(run, "_namespace", lambda: ("sh", "-c", script, "unshare"))
    step = plans.Run("make a tree", ("true",), root=True)
    with pytest.raises(Error) as refused:
        run._run(step, tmp_path, Progress(1, quiet=True), (), None)
    assert (
        refused.value.message == "make a tree: no namespace can be created: unshare failed: Operation not permitted"
    )
    assert "build outside of" in refused.value.hint


def test_what_a_failed_step_says_has_a_bound(tmp_path: Path) -> None:
    """Both ends of the output are read, as the reason may be at either."""
    # 2 GiB, mostly a hole.
    said = "import os; os.write(1, b'E: first\\n'); os.lseek(1, 2**31, 0); os.write(1, b'\\nlast\\n'); os._exit(1)"
    step = plans.Run("say much", (sys.executable, "-c", said))
    (tmp_path / "script").write_text(
        "import pathlib, sys; from debian_cloud import plan; from debian_cloud.host import run\n"
        "from debian_cloud.host.progress import Progress\n"
        f"step = plan.Run({step.title!r}, {step.argv!r})\n"
        "run.carry_out((step,), pathlib.Path(sys.argv[1]), Progress(1, quiet=True))"
    )
    done = bounds.within(500, [sys.executable, tmp_path / "script", tmp_path])
    assert done.returncode == 1
    assert re.search(rb"failed with exit status 1\n  E: first\n(.*\n)?  last\n", done.stderr), done.stderr[-2000:]
