# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs for instances, which the package debian-cloud-machines has: one module each, as in `cli`."""
