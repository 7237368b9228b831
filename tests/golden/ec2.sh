#!/bin/sh
# shellcheck disable=SC2016
# About.
set -eu
umask 022
# Of the caller's environment no more is seen than is named here.
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
    case $name in PATH | HOME | http_proxy | https_proxy | ftp_proxy | no_proxy | APT_CONFIG | TMPDIR | PWD | SHELLOPTS | BASHOPTS) ;; *) unset "$name" ;; esac
done
export LC_ALL=C.UTF-8
export TZ=UTC
export DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/sbin:/sbin

# Root steps run in namespaces of their own: mounts end with them, and no privilege is needed.
if [ "$(id -u)" = 0 ]; then
    as_root() { unshare --mount --pid --uts --fork --kill-child --mount-proc sh -c 'hostname localhost && domainname "(none)" && exec "$@"' sh "$@"; }
else
    # Where it is forbidden, this says so; with --map-auto, a process of unshare(1) would wait for ever.
    unshare --mount --pid --uts --fork --kill-child --mount-proc --user --map-root-user sh -c 'hostname localhost && domainname "(none)" && exec "$@"' sh true
    as_root() { unshare --mount --pid --uts --fork --kill-child --mount-proc --user --map-root-user --map-auto sh -c 'hostname localhost && domainname "(none)" && exec "$@"' sh "$@"; }
fi

mkdir image
cd image

# 1. list the packages of essential
mkdir -p packages
cat > packages/1-essential <<'END'
ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 88296 base-files_13.8_amd64.deb http://debian.example/debian/pool/main/b/base-files/base-files_13.8_amd64.deb
END

# 2. list the packages of added
mkdir -p packages
cat > packages/2-added <<'END'
8888888888888888888888888888888888888888888888888888888888888888 114952 login_1%3a4.16.0-2_amd64.deb http://debian.example/debian/pool/main/s/shadow/login_4.16.0-2_amd64.deb
END

# 3. list what else makes the image
mkdir -p packages
cat > packages/tools <<'END'
cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 198228 mtools_4.0.48-1_amd64.deb http://debian.example/debian/pool/main/m/mtools/mtools_4.0.48-1_amd64.deb
END

# 4. get 2 packages
debian-cloud packages debs packages/1-essential packages/2-added packages/tools < /dev/null

# 5. prepare to install
cat > install <<'END'
(the text of install.py)
END
chmod 755 install

# 6. note the answers to debconf
cat > answers <<'END'
locales locales/default_environment_locale select C.UTF-8
grub2 grub2/force_efi_extra_removable boolean true
END
chmod 600 answers

# 7. plan to install essential: 1 packages
mkdir -p stages
cat > stages/1-essential <<'END'
essential base-files_13.8_amd64.deb
answers answers
configure
END

# 8. install essential: 1 packages
as_root ./install tree stages/1-essential < /dev/null

# 9. plan to install added: 1 packages
mkdir -p stages
cat > stages/2-added <<'END'
unpack login_1%3a4.16.0-2_amd64.deb
configure
END

# 10. install added: 1 packages
as_root ./install tree stages/2-added < /dev/null

# 11. note what was installed automatically
cat > automatic <<'END'
Package: login
Architecture: amd64
Auto-Installed: 1

END

# 12. note the packages to come
cat > expected <<'END'
installed base-files 13.8 amd64
installed login 1:4.16.0-2 amd64
END

# 13. plan to make the initrd
mkdir -p stages
cat > stages/finish <<'END'
mark automatic
initrd
list installed
END

# 14. make the initrd
as_root env SOURCE_DATE_EPOCH=1795224967 ./install tree stages/finish < /dev/null

# 15. compare installed packages with the resolved ones
diff -u expected installed < /dev/null

# 16. prepare to run the image's own tools
cat > in-tree <<'END'
(the text of in-tree)
END
chmod 755 in-tree

# 17. unpack the tool mtools
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree dpkg-deb --extract /mnt/debs/mtools_4.0.48-1_amd64.deb /mnt/tools < /dev/null

# 18. remove what the installation needed
as_root rm -f tree/etc/hostname tree/var/lib/dbus/machine-id tree/var/lib/dpkg/available < /dev/null

# 19. set the image's sources
as_root install -m 0644 /dev/stdin tree/etc/apt/sources.list.d/debian.sources <<'END'
Types: deb deb-src
URIs: http://debian.example/debian
Suites: trixie trixie-updates trixie-backports
Components: main
Signed-By: /debian.gpg

Types: deb deb-src
URIs: http://debian.example/security
Suites: trixie-security
Components: main
Signed-By: /debian.gpg
END

# 20. say what image it is
as_root install -m 0644 /dev/stdin tree/etc/cloud-release <<'END'
ID=ec2
VERSION="20261121.0"
END

# 21. set the default locale
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sh -c 'grep -qs ^LANG= /etc/default/locale || echo LANG=C.UTF-8 >>/etc/default/locale' < /dev/null

# 22. empty machine-id
as_root install -m 0444 /dev/null tree/etc/machine-id < /dev/null

# 23. point resolv.conf to systemd-resolved
as_root ln -sfn ../run/systemd/resolve/stub-resolv.conf tree/etc/resolv.conf < /dev/null

# 24. write fstab
as_root install -m 0644 /dev/stdin tree/etc/fstab <<'END'
PARTUUID=a3491e84-ae80-5209-adf0-c238d3d88d9c / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
PARTUUID=cf908535-5697-5935-94f4-9d5ca28a2f54 /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=10min 0 2
END

# 25. make the ESP's mount point
as_root mkdir -p tree/boot/efi < /dev/null

# 26. identify the disk to grub
cat > grub-probe.identities <<'END'
root_partuuid=a3491e84-ae80-5209-adf0-c238d3d88d9c
root_uuid=b6b2bf48-9433-56a8-afc2-2491328ed029
END

# 27. prepare grub-probe
cat > grub-probe <<'END'
(the text of grub-probe)
END
chmod 755 grub-probe

# 28. prepare grub-setup
cat > grub-setup <<'END'
(the text of grub-setup)
END
chmod 755 grub-setup

# 29. configure grub
as_root ./grub-setup tree a3491e84-ae80-5209-adf0-c238d3d88d9c bios < /dev/null

# 30. empty run-time directories
as_root find tree/dev tree/run tree/tmp tree/var/tmp -mindepth 1 -delete < /dev/null

# 31. empty logs and caches
as_root find tree/var/log tree/var/cache/apt tree/var/cache/ldconfig tree/var/lib/apt/lists -type f -delete < /dev/null

# 32. leave out the builder's resolv.conf
as_root find tree/etc -path 'tree/etc/.resolv.conf.*.bak' -delete < /dev/null

# 33. leave out backup and lock files
as_root find tree/etc tree/var/lib tree/var/cache/debconf -type f '(' -name '*-old' -o -name '*.old' -o -path \
    'tree/etc/*-' -o -name .pwd.lock ')' -delete < /dev/null

# 34. leave out secrets and identities
as_root debian-cloud scrub tree < /dev/null

# 35. clamp time stamps
as_root find tree -newermt @1795224967 -exec touch -h -d @1795224967 '{}' + < /dev/null

# 36. make an empty disk
truncate -s 8589934592 debian-13-ec2-amd64-20261121.0.raw < /dev/null

# 37. partition it
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sfdisk --quiet --no-reread --no-tell-kernel --wipe=never \
    /mnt/debian-13-ec2-amd64-20261121.0.raw <<'END'
label: gpt
label-id: 5c927193-2513-54e4-8555-811b44829f71
unit: sectors
sector-size: 512

1 : start=262144, size=16513024, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid=a3491e84-ae80-5209-adf0-c238d3d88d9c, name="root"
14 : start=2048, size=6144, type=21686148-6449-6e6f-744e-656564454649, uuid=f581fcda-d273-5bad-8d80-d1ddec73016c, name="bios"
15 : start=8192, size=253952, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, uuid=cf908535-5697-5935-94f4-9d5ca28a2f54, name="esp"
END

# 38. place GRUB's core image
as_root dd if=tree/boot/grub/i386-pc/core.img of=debian-13-ec2-amd64-20261121.0.raw bs=512 seek=2048 \
    conv=notrunc status=none < /dev/null

# 39. place GRUB's boot sector
as_root dd if=tree/boot/grub/i386-pc/boot.img of=debian-13-ec2-amd64-20261121.0.raw bs=440 count=1 \
    conv=notrunc status=none < /dev/null

# 40. point the boot sector to the core image
printf '\000\010\000\000\000\000\000\000' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=92 conv=notrunc status=none

# 41. let it mend the boot drive
printf '\220\220' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=102 conv=notrunc status=none

# 42. point the core image to its rest
printf '\001\010\000\000\000\000\000\000' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=1049076 conv=notrunc status=none

# 43. make the EFI system partition
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mformat -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 -F -v ESP -N a1ada376 -T \
    253952 -h 255 -s 63 -H 8192 :: < /dev/null

# 44. take a partition entry out of it
dd if=/dev/zero of=debian-13-ec2-amd64-20261121.0.raw bs=1 count=16 seek=4194750 conv=notrunc \
    status=none < /dev/null

# 45. take a partition entry out of it
dd if=/dev/zero of=debian-13-ec2-amd64-20261121.0.raw bs=1 count=16 seek=4197822 conv=notrunc \
    status=none < /dev/null

# 46. make its directories
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mmd -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 ::EFI ::EFI/BOOT ::EFI/debian < /dev/null

# 47. place EFI/BOOT/BOOTX64.EFI
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/shimx64.efi.signed ::EFI/BOOT/BOOTX64.EFI < /dev/null

# 48. place EFI/BOOT/grubx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/BOOT/grubx64.efi < /dev/null

# 49. place EFI/BOOT/mmx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/mmx64.efi.signed ::EFI/BOOT/mmx64.efi < /dev/null

# 50. place EFI/debian/BOOTX64.CSV
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 /usr/lib/shim/BOOTX64.CSV \
    ::EFI/debian/BOOTX64.CSV < /dev/null

# 51. place EFI/debian/fbx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/fbx64.efi.signed ::EFI/debian/fbx64.efi < /dev/null

# 52. place EFI/debian/grubx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/debian/grubx64.efi < /dev/null

# 53. place EFI/debian/mmx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/mmx64.efi.signed ::EFI/debian/mmx64.efi < /dev/null

# 54. place EFI/debian/shimx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/shimx64.efi.signed ::EFI/debian/shimx64.efi < /dev/null

# 55. place EFI/debian/grub.cfg
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 - ::EFI/debian/grub.cfg <<'END'
search.fs_uuid b6b2bf48-9433-56a8-afc2-2491328ed029 root 
set prefix=($root)'/boot/grub'
configfile $prefix/grub.cfg
END

# 56. set mke2fs's defaults
cat > mke2fs.conf <<'END'
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = 4096
    inode_size = 256
    inode_ratio = 16384
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    }
END

# 57. make the root file system
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mke2fs -q -F -t ext4 -L root -U b6b2bf48-9433-56a8-afc2-2491328ed029 -E \
    offset=134217728,hash_seed=6b0d8740-ae5f-5f4c-85b0-6ee34ff507df,nodiscard,assume_storage_prezeroed=1 \
    -d /mnt/tree /mnt/debian-13-ec2-amd64-20261121.0.raw 8256512k < /dev/null

# 58. prepare to set its inodes' times
cat > inode-times <<'END'
(the text of inode-times)
END
chmod 755 inode-times

# 59. set its inodes' times
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree /mnt/inode-times /mnt/debian-13-ec2-amd64-20261121.0.raw 134217728 < /dev/null

# 60. convert to qcow2
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd \
    /mnt/debian-13-ec2-amd64-20261121.0.raw /mnt/debian-13-ec2-amd64-20261121.0.qcow2 < /dev/null

# 61. write down the facts
cat > facts <<'END'
Config: ec2
Config-Version: 0.1.0
Suite: trixie
Architecture: amd64
Serial: 20261121.0
Epoch: 1795224967
Virtual-Size: 8589934592
Maintainer: Some One <one@example.org>
Formats: raw qcow2
Firmware: bios uefi
User: admin
Datasource: Ec2
Plan: 25023c32b830872c3d2985773fab3995ac183f0e14c28cf006b8a1374301d6e7
Packages:
 ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 88296 base-files 13.8 amd64
 8888888888888888888888888888888888888888888888888888888888888888 114952 login 1:4.16.0-2 amd64
Tools:
 cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 198228 mtools 4.0.48-1 amd64
Releases:
 eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 140000 trixie http://debian.example/debian DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD
Sources:
 http://debian.example/debian trixie trixie-updates
 http://debian.example/security trixie-security
END

# 62. write hashes and records
debian-cloud seal . < /dev/null
