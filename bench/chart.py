# SPDX-License-Identifier: GPL-3.0-or-later
"""Bars as SVG, for light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 720
_LABEL: Final = 190
"""Where the bars begin."""
_END: Final = 70
"""Room for the figures behind the longest bar."""
_ROW: Final = 46
_TOP: Final = 56
_STYLE: Final = """\
text { font: 14px sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e }
.wall { fill: #0969da } .cpu { fill: #9a6700 } .ours { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 }
.wall { fill: #4493f8 } .cpu { fill: #d29922 } .ours { fill: #3fb950 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One builder: seconds of wall time and of CPU time; `own` is whether it is ours."""

    label: str
    seconds: float
    cpu: float
    own: bool = False


def render(bars: Sequence[Bar]) -> str:
    """The chart: two bars a builder, wall time above CPU time, with their figures."""
    longest = max((value for bar in bars for value in (bar.seconds, bar.cpu)), default=1.0)
    scale = (_WIDTH - _LABEL - _END) / longest
    height = _TOP + _ROW * len(bars) + 8
    about = "; ".join(f"{bar.label} {bar.seconds:.1f} s, {bar.cpu:.1f} CPU s" for bar in bars) or "no figures"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"',
        f'     width="{_WIDTH}" height="{height}" aria-labelledby="title about">',
        '<title id="title">Seconds to build the same disk, no stage cached</title>',
        f'<desc id="about">{escape(about)}</desc>',
        f"<style>\n{_STYLE}\n</style>",
        '<text x="0" y="18">Seconds to build the same disk, no stage cached</text>',
        '<text x="0" y="38" class="small">upper bar: wall time; lower bar: CPU time. Shorter is better.</text>',
    ]
    for number, bar in enumerate(bars):
        y = _TOP + _ROW * number
        lines += [
            f'<text x="0" y="{y + 20}">{escape(bar.label)}</text>',
            *_bar(y, 16, bar.seconds, scale, "ours" if bar.own else "wall"),
            *_bar(y + 18, 10, bar.cpu, scale, "cpu"),
        ]
    return "".join(f"{line}\n" for line in (*lines, "</svg>"))


def _bar(y: int, height: int, value: float, scale: float, kind: str) -> tuple[str, str]:
    width = value * scale
    return (
        f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{height}" rx="2" class="{kind}"/>',
        f'<text x="{_LABEL + width + 6:.1f}" y="{y + height - 1}" class="small">{value:.1f}</text>',
    )
