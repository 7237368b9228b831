# SPDX-License-Identifier: GPL-3.0-or-later
"""By HTTP and HTTPS, with curl(1)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from debian_cloud.host import run

if TYPE_CHECKING:
    from debian_cloud.mirror.transports import Job

SCHEMES: Final = ("http", "https")
_PARALLEL: Final = 8
_ABORTED: Final = 42
"""Exit status of a transfer that was aborted because another one failed (curl(1))."""
_STATUS: Final = 22
_RANGE: Final = 33
_MISSING: Final = ("403", "404", "410")
_ENVIRONMENT: Final = (
    *("HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY"),
    *("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
_ANSWER: Final = re.compile("([0-9]+) ([0-9]{3}) (\\S+) ?(.*)")


def fetch(job: Job) -> tuple[str, ...]:
    """Fetch the files of a job that the source has; a partial file is continued."""
    url = job.source.url
    parallel = max(1, min(_PARALLEL, len(job.files), job.bandwidth or _PARALLEL))
    names = job.listing(
        "".join(f'url = "{url}/{file.path.replace("+", "%2B")}"\noutput = "{file.path}"\n' for file in job.files)
    )
    ended = run.bounded(
        (
            *("curl", "-q", "--config", str(names), "--parallel", "--parallel-max", str(parallel)),
            *(("--fail-early",) if job.eager else ()),
            *("--fail", "--silent", "--progress-meter" if job.drawn else "--no-progress-meter"),
            *("--globoff", "--proto", "=http,https", "--location", "--max-redirs", "8", "--create-dirs"),
            # A server must not say how long this waits (RFC 9110, 10.2.3).
            *("--remote-time", "--continue-at", "-", "--retry", "2", "--retry-max-time", str(job.timeout)),
            *("--connect-timeout", str(job.timeout), "--speed-time", str(job.timeout)),
            *("--speed-limit", str(max(1, job.slowest // parallel))),
            *(("--limit-rate", f"{job.bandwidth // parallel}K") if job.bandwidth else ()),
            *("--header", "Cache-Control: max-age=0"),
            *("--write-out", "%{exitcode} %{http_code} %{filename_effective} %{errormsg}\\n"),
        ),
        job.into,
        job.work,
        # curl itself ends a transfer that is too slow.
        replace(job.limits, slowest=0),
        keep=_ENVIRONMENT,
        meter="stderr" if job.drawn else "",
        lock=job.lock,
    )
    if ended.status == 0:
        return ()
    missing, reasons, explained = list[str](), list[str](), False
    for line in ended.said.splitlines():
        match = _ANSWER.fullmatch(line)
        if not match:
            continue
        status, code, reason = int(match[1]), match[2], match[4]
        # 22 without an answer (000): aborted before it began.
        if status in (0, _ABORTED) or (status == _STATUS and code == "000"):
            continue
        # 33, 416: the file of an earlier run cannot be continued; the verification decides.
        if status == _RANGE or code == "416":
            explained = True
        elif code in _MISSING:
            missing.append(match[3])
        else:
            reasons.append(reason)
    if reasons or not (missing or explained):
        raise job.failed(ended, (*reasons, *ended.complaint.splitlines(), "")[0])
    return (*missing,)
