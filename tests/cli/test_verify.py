# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the arguments of verify reaches the proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from debian_cloud import cli
from debian_cloud.build import store
from debian_cloud.errors import Error
from debian_cloud.proof import verify


@pytest.mark.parametrize(("words", "bound"), [((), store.BOUND), (("--cache-size", "0"), 0)])
def test_an_image_may_be_made_again_without_layers(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], bound: int
) -> None:
    found: list[verify.Given] = []

    def prove(_image: Path, _trust: object, given: verify.Given, **_options: bool) -> None:
        found.append(given)
        raise Error("seen")

    monkeypatch.setattr(verify, "verify", prove)
    with pytest.raises(Error, match="seen"):
        cli.run(["verify", "x.raw", *words])
    assert [given.bound for given in found] == [bound]
