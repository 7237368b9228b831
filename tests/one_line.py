# SPDX-License-Identifier: GPL-3.0-or-later
"""Package sources in one-line style (sources.list(5)), which mmdebstrap(1) reads."""

from __future__ import annotations

from collections.abc import Iterable

from debian_cloud.image.sources import Source


def as_lines(sources: Iterable[Source]) -> str:
    """The lines of these sources."""

    def line(source: Source, suite: str) -> str:
        expired = " check-valid-until=no" if source.expired else ""
        # In this style, apt decodes percent-encoding once more.
        uri = source.uri.replace("%", "%25")
        return f"deb [signed-by={source.signed_by}{expired}] {uri} {suite} {' '.join(source.components)}\n"

    return "".join(line(source, suite) for source in sources for suite in source.suites)
