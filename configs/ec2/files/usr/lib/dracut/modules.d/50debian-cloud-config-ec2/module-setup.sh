#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Gives dracut(8) the script that initramfs-tools(7) has.

check() {
    return 0
}

install() {
    inst_hook pre-udev 00 /usr/share/initramfs-tools/scripts/init-top/debian-cloud-config-ec2.sh
}
