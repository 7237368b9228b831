# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the builder beside other builders of Debian images, in turns, on one machine (`make bench`)."""
