# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of instances: started, entered, ended, and attacked."""
