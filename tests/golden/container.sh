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
END

# 4. note the way to the network
debian-cloud network network.conf < /dev/null

# 5. install 2 packages
as_root env SOURCE_DATE_EPOCH=1795224967 PYTHONDONTWRITEBYTECODE=1 http_proxy='' https_proxy='' ftp_proxy='' mmdebstrap --mode=root --format=directory --variant=minbase --architectures=amd64 \
    --include=debian-cloud-config-container \
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
ID=container
VERSION="20261121.0"
END

# 16. set the default locale
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sh -c 'grep -qs ^LANG= /etc/default/locale || echo LANG=C.UTF-8 >>/etc/default/locale' < /dev/null

# 17. empty machine-id
as_root install -m 0444 /dev/null tree/etc/machine-id < /dev/null

# 18. point resolv.conf to systemd-resolved
as_root ln -sfn ../run/systemd/resolve/stub-resolv.conf tree/etc/resolv.conf < /dev/null

# 19. empty run-time folders
as_root find tree/dev tree/run tree/tmp tree/var/tmp -mindepth 1 -delete < /dev/null

# 20. empty logs and caches
as_root find tree/var/log tree/var/cache/apt tree/var/cache/ldconfig tree/var/lib/apt/lists -type f -delete < /dev/null

# 21. leave out the builder's resolv.conf
as_root find tree/etc -path 'tree/etc/.resolv.conf.*.bak' -delete < /dev/null

# 22. leave out backup and lock files
as_root find tree/etc tree/var/lib tree/var/cache/debconf -type f '(' -name '*-old' -o -name '*.old' -o -path \
    'tree/etc/*-' -o -name .pwd.lock ')' -delete < /dev/null

# 23. leave out secrets and identities
as_root debian-cloud scrub tree < /dev/null

# 24. clamp time stamps
as_root find tree -newermt @1795224967 -exec touch -h -d @1795224967 '{}' + < /dev/null

# 25. pack the tree
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree tar --create --file /mnt/debian-13-container-amd64-20261121.0.tar.xz \
    '--use-compress-program=xz -2 --threads=0 --block-size=16MiB' --format=pax \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --sort=name --numeric-owner \
    --acls --xattrs '--xattrs-include=*' --mtime=@1795224967 --clamp-mtime --directory=/mnt/tree . < /dev/null

# 26. write down the facts
cat > facts <<'END'
Config: container
Config-Version: 0.1.0
Suite: trixie
Architecture: amd64
Serial: 20261121.0
Epoch: 1795224967
Virtual-Size: 0
Maintainer: Some One <one@example.org>
Formats: tar.xz
Plan: d9c92d6b5c05ca0ade15b2a4e2b184a3caad1761beaa7c2b2433b379cbf62342
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

# 27. write hashes and records
debian-cloud seal . < /dev/null
