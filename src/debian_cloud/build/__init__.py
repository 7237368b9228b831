# SPDX-License-Identifier: GPL-3.0-or-later
"""An image, planned and made: a plan is data, and only `workspace` carries one out."""
