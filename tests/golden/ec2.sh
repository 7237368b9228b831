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

# 1. set sources
cat > sources.list <<'END'
deb [signed-by=/debian.gpg] http://debian.example/debian trixie main
deb [signed-by=/debian.gpg] http://debian.example/debian trixie-updates main
deb [signed-by=/debian.gpg] http://debian.example/security trixie-security main
deb [signed-by=/archive.gpg] copy:/srv/archive trixie main
END

# 2. note the packages to come
cat > expected <<'END'
8888888888888888888888888888888888888888888888888888888888888888  login_1%3a4.16.0-2_amd64.deb
ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff  base-files_13.8_amd64.deb
END

# 3. note the answers to debconf
cat > seed <<'END'
locales locales/default_environment_locale select C.UTF-8
grub2 grub2/force_efi_extra_removable boolean true
END

# 4. note the way to the network
debian-cloud network network.conf < /dev/null

# 5. install 2 packages
as_root env SOURCE_DATE_EPOCH=1795224967 PYTHONDONTWRITEBYTECODE=1 http_proxy='' https_proxy='' ftp_proxy='' mmdebstrap --mode=root --format=directory --variant=minbase --architectures=amd64 \
    --include=debian-cloud-config-ec2 \
    '--setup-hook=printf '"'"'#include "%s/../network.conf";\n'"'"' "$1" >> "$MMDEBSTRAP_APT_CONFIG"' \
    '--setup-hook=cd "$1/etc" && rm -f hostname resolv.conf && : > resolv.conf && echo localhost > hostname && chmod 644 hostname resolv.conf' \
    '--essential-hook=chroot "$1" debconf-set-selections < "$1/../seed"' \
    '--aptopt=Acquire::Languages "none"' '--aptopt=APT::Sandbox::User "root"' --dpkgopt=force-unsafe-io \
    '--extract-hook=cd "$1/var/cache/apt/archives" && sha256sum -- *.deb >> "$1/../installed"' \
    '--customize-hook=cd "$1/var/cache/apt/archives" && sha256sum -- *.deb >> "$1/../installed"' \
    '--extract-hook=mkdir "$1/../debs" && cd "$1/../debs" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q download mtools=4.0.48-1' \
    trixie tree sources.list < /dev/null

# 6. forget the way to the network
truncate -s 0 network.conf < /dev/null

# 7. sort the list of installed packages
sort -u -o installed installed < /dev/null

# 8. compare installed packages with the resolved ones
diff -u expected installed < /dev/null

# 9. prepare to run the image's own tools
cat > in-tree <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs a tool of the image's own suite, so that the host's version does not show
# in the result: the tree's, or one that was unpacked beside it. The workspace is
# at /mnt. The mounts end with the namespace.
# usage: in-tree TREE COMMAND [ARGUMENT…]
set -eu
tree=$1
shift
# Not recursive: /mnt/tree is the tree without what is mounted in it.
mount --bind . "$tree/mnt"
# mke2fs warns when it cannot see what is mounted.
mount -t proc proc "$tree/proc"
path=/usr/sbin:/usr/bin:/sbin:/bin libraries=
for folder in tools/usr/sbin tools/usr/bin tools/sbin tools/bin; do
    [ ! -d "$folder" ] || path=$path:/mnt/$folder
done
for folder in tools/usr/lib/*-linux-gnu* tools/lib/*-linux-gnu*; do
    [ ! -d "$folder" ] || libraries=${libraries:+$libraries:}/mnt/$folder
done
# mtools would ask about a geometry that no firmware reads.
exec chroot "$tree" /usr/bin/env -i LC_ALL=C.UTF-8 "PATH=$path" ${libraries:+"LD_LIBRARY_PATH=$libraries"} \
    "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH" \
    MKE2FS_CONFIG=/mnt/mke2fs.conf MTOOLS_SKIP_CHECK=1 "$@"
END
chmod 755 in-tree

# 10. note the tools to come
cat > tools.sha256 <<'END'
cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc  debs/mtools_4.0.48-1_amd64.deb
END

# 11. compare the tools with the resolved ones
sha256sum --check --strict tools.sha256 < /dev/null

# 12. unpack the tool mtools
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree dpkg-deb --extract /mnt/debs/mtools_4.0.48-1_amd64.deb /mnt/tools < /dev/null

# 13. remove the bootstrap's settings
as_root rm -rf tree/etc/fstab tree/etc/hostname tree/etc/apt/sources.list \
    tree/etc/apt/sources.list.d/0000sources.list tree/etc/apt/apt.conf.d/99mmdebstrap \
    tree/etc/apt/preferences.d/99mmdebstrap tree/etc/apt/preferences.d/99debian-cloud \
    tree/etc/dpkg/dpkg.cfg.d/99mmdebstrap < /dev/null

# 14. set the image's sources
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

# 15. say what image it is
as_root install -m 0644 /dev/stdin tree/etc/cloud-release <<'END'
ID=ec2
VERSION="20261121.0"
END

# 16. set the default locale
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sh -c 'grep -qs ^LANG= /etc/default/locale || echo LANG=C.UTF-8 >>/etc/default/locale' < /dev/null

# 17. empty machine-id
as_root install -m 0444 /dev/null tree/etc/machine-id < /dev/null

# 18. point resolv.conf to systemd-resolved
as_root ln -sfn ../run/systemd/resolve/stub-resolv.conf tree/etc/resolv.conf < /dev/null

# 19. write fstab
as_root install -m 0644 /dev/stdin tree/etc/fstab <<'END'
PARTUUID=a3491e84-ae80-5209-adf0-c238d3d88d9c / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
PARTUUID=cf908535-5697-5935-94f4-9d5ca28a2f54 /boot/efi vfat umask=0077,defaults 0 2
END

# 20. make the ESP's mount point
as_root mkdir -p tree/boot/efi < /dev/null

# 21. identify the disk to grub
cat > grub-probe.identities <<'END'
root_partuuid=a3491e84-ae80-5209-adf0-c238d3d88d9c
root_uuid=b6b2bf48-9433-56a8-afc2-2491328ed029
END

# 22. prepare grub-probe
cat > grub-probe <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Answers grub-mkconfig(8) as the finished disk will, where there is no device yet.
# usage: grub-probe [OPTION…] --target=TARGET [PATH]
set -eu
# The builder writes these beside the script: this disk's identities.
# shellcheck source=/dev/null
. /run/grub-probe.identities
target=
while [ $# -gt 0 ]; do
    case $1 in
        --target=*) target=${1#*=} ;;
        -t) target=$2; shift ;;
    esac
    shift
done
# shellcheck disable=SC2154 # root_partuuid and root_uuid come from the file above
case $target in
    device) echo "/dev/disk/by-partuuid/$root_partuuid" ;;
    fs) echo ext2 ;;
    fs_uuid) echo "$root_uuid" ;;
    partuuid) echo "$root_partuuid" ;;
    partmap) echo gpt ;;
    drive) echo "(hd0,gpt1)" ;;
esac
END
chmod 755 grub-probe

# 23. prepare grub-setup
cat > grub-setup <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Leaves boot loader files and grub.cfg in a tree as grub-install(8) and
# update-grub(8) would on the finished disk. All mounts end with the namespace.
# usage: grub-setup TREE ROOT_PARTUUID [bios]
set -eu
tree=$1 partuuid=$2 bios=${3-}
grub=$tree/boot/grub
in_tree() { chroot "$tree" /usr/bin/env -i LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

mkdir -p "$grub/fonts"
cp "$tree/usr/share/grub/unicode.pf2" "$grub/fonts/"
for platform in x86_64-efi ${bios:+i386-pc}; do
    mkdir "$grub/$platform"
    cp "$tree/usr/lib/grub/$platform"/*.mod "$tree/usr/lib/grub/$platform"/*.lst "$grub/$platform/"
done
# update-grub writes root=PARTUUID= only where udev's link is there to see.
mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
: > "$tree/dev/null"
mount --bind /dev/null "$tree/dev/null"
mkdir -p "$tree/dev/disk/by-partuuid"
: > "$tree/dev/disk/by-partuuid/$partuuid"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
cp grub-probe.identities "$tree/run/"
mount --bind grub-probe "$tree/usr/sbin/grub-probe"

in_tree grub-editenv /boot/grub/grubenv create
if [ "$bios" ]; then
    cp "$tree/usr/lib/grub/i386-pc/boot.img" "$grub/i386-pc/"
    in_tree grub-mkimage -O i386-pc -p '(,gpt1)/boot/grub' -o /boot/grub/i386-pc/core.img biosdisk part_gpt ext2
fi
in_tree update-grub
# From now on upgrades run grub-install: the flag that grub-cloud waits for.
: > "$tree/etc/grub.d/enable_cloud"
END
chmod 755 grub-setup

# 24. configure grub
as_root ./grub-setup tree a3491e84-ae80-5209-adf0-c238d3d88d9c bios < /dev/null

# 25. empty run-time folders
as_root find tree/dev tree/run tree/tmp tree/var/tmp -mindepth 1 -delete < /dev/null

# 26. empty logs and caches
as_root find tree/var/log tree/var/cache/apt tree/var/cache/ldconfig tree/var/lib/apt/lists -type f -delete < /dev/null

# 27. leave out the builder's resolv.conf
as_root find tree/etc -path 'tree/etc/.resolv.conf.*.bak' -delete < /dev/null

# 28. leave out backup and lock files
as_root find tree/etc tree/var/lib tree/var/cache/debconf -type f '(' -name '*-old' -o -name '*.old' -o -path \
    'tree/etc/*-' -o -name .pwd.lock ')' -delete < /dev/null

# 29. leave out secrets and identities
as_root debian-cloud scrub tree < /dev/null

# 30. clamp time stamps
as_root find tree -newermt @1795224967 -exec touch -h -d @1795224967 '{}' + < /dev/null

# 31. make an empty disk
truncate -s 8589934592 debian-13-ec2-amd64-20261121.0.raw < /dev/null

# 32. partition it
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

# 33. place GRUB's core image
as_root dd if=tree/boot/grub/i386-pc/core.img of=debian-13-ec2-amd64-20261121.0.raw bs=512 seek=2048 \
    conv=notrunc status=none < /dev/null

# 34. place GRUB's boot sector
as_root dd if=tree/boot/grub/i386-pc/boot.img of=debian-13-ec2-amd64-20261121.0.raw bs=440 count=1 \
    conv=notrunc status=none < /dev/null

# 35. point the boot sector to the core image
printf '\000\010\000\000\000\000\000\000' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=92 conv=notrunc status=none

# 36. let it mend the boot drive
printf '\220\220' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=102 conv=notrunc status=none

# 37. point the core image to its rest
printf '\001\010\000\000\000\000\000\000' | dd of=debian-13-ec2-amd64-20261121.0.raw bs=1 seek=1049076 conv=notrunc status=none

# 38. make the EFI system partition
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mformat -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 -F -v ESP -N a1ada376 -T \
    253952 -h 255 -s 63 -H 8192 :: < /dev/null

# 39. take a partition entry out of it
dd if=/dev/zero of=debian-13-ec2-amd64-20261121.0.raw bs=1 count=16 seek=4194750 conv=notrunc \
    status=none < /dev/null

# 40. take a partition entry out of it
dd if=/dev/zero of=debian-13-ec2-amd64-20261121.0.raw bs=1 count=16 seek=4197822 conv=notrunc \
    status=none < /dev/null

# 41. make its folders
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mmd -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 ::EFI ::EFI/BOOT ::EFI/debian < /dev/null

# 42. place EFI/BOOT/BOOTX64.EFI
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/shimx64.efi.signed ::EFI/BOOT/BOOTX64.EFI < /dev/null

# 43. place EFI/BOOT/grubx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/BOOT/grubx64.efi < /dev/null

# 44. place EFI/BOOT/mmx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/mmx64.efi.signed ::EFI/BOOT/mmx64.efi < /dev/null

# 45. place EFI/debian/BOOTX64.CSV
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 /usr/lib/shim/BOOTX64.CSV \
    ::EFI/debian/BOOTX64.CSV < /dev/null

# 46. place EFI/debian/fbx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/fbx64.efi.signed ::EFI/debian/fbx64.efi < /dev/null

# 47. place EFI/debian/grubx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/debian/grubx64.efi < /dev/null

# 48. place EFI/debian/mmx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/mmx64.efi.signed ::EFI/debian/mmx64.efi < /dev/null

# 49. place EFI/debian/shimx64.efi
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 \
    /usr/lib/shim/shimx64.efi.signed ::EFI/debian/shimx64.efi < /dev/null

# 50. place EFI/debian/grub.cfg
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mcopy -i /mnt/debian-13-ec2-amd64-20261121.0.raw@@4194304 - ::EFI/debian/grub.cfg <<'END'
search.fs_uuid b6b2bf48-9433-56a8-afc2-2491328ed029 root 
set prefix=($root)'/boot/grub'
configfile $prefix/grub.cfg
END

# 51. set mke2fs's defaults
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

# 52. make the root file system
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree mke2fs -q -F -t ext4 -L root -U b6b2bf48-9433-56a8-afc2-2491328ed029 -E \
    offset=134217728,hash_seed=6b0d8740-ae5f-5f4c-85b0-6ee34ff507df,nodiscard,assume_storage_prezeroed=1 \
    -d /mnt/tree /mnt/debian-13-ec2-amd64-20261121.0.raw 8256512k < /dev/null

# 53. prepare to set its inodes' times
cat > inode-times <<'END'
#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Gives every inode of a new ext4 file system the same ctime and atime: mke2fs
# copies the tree's, which nothing can set, and before 1.47.2 it keeps them as
# they are. Runs in the tree (in-tree), by the image's own debugfs(8).
# usage: inode-times DISK OFFSET
set -eu
device="$1?offset=$2"
count() { debugfs -R "stats -h" "$device" 2> /dev/null | sed -n "s/^$1: *//p"; }

# mke2fs -d hands out inodes from the first free one on: those in use have no gap.
last=$(($(count "Inode count") - $(count "Free inodes")))
{
    echo 2
    seq 11 "$last"
} | sed "s/.*/sif <&> ctime @$SOURCE_DATE_EPOCH\nsif <&> atime @$SOURCE_DATE_EPOCH\nsif <&> ctime_extra 0\nsif <&> atime_extra 0/" |
    debugfs -w -f - "$device" > /dev/null
END
chmod 755 inode-times

# 54. set its inodes' times
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree /mnt/inode-times /mnt/debian-13-ec2-amd64-20261121.0.raw 134217728 < /dev/null

# 55. convert to qcow2
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd \
    /mnt/debian-13-ec2-amd64-20261121.0.raw /mnt/debian-13-ec2-amd64-20261121.0.qcow2 < /dev/null

# 56. write down the facts
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
Plan: db959e84a2fd1fd14238c210bc126e3f5d774f959306b19a824ec322e22e9683
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

# 57. write hashes and records
debian-cloud seal . < /dev/null
