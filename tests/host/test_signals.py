# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals end the work in an orderly way, or are held back for a moment."""

from __future__ import annotations

import os
import signal
import time

import pytest

from debian_cloud.host import signals


def test_no_signal_ends_us_while_half_the_work_would_be_left() -> None:
    with signals.ending_politely(), signals.undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
    with pytest.raises(KeyboardInterrupt), signals.ending_politely():
        signal.raise_signal(signal.SIGTERM)
