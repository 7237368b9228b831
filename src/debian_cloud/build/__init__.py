# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan and make an image: a plan is data, and only `workspace` carries one out."""
