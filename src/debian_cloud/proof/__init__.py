# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an image may be trusted: nothing of it is executed, and nothing it says of itself is believed."""
