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
ID=container
VERSION="20261121.0"
END

# 21. set the default locale
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree sh -c 'grep -qs ^LANG= /etc/default/locale || echo LANG=C.UTF-8 >>/etc/default/locale' < /dev/null

# 22. empty machine-id
as_root install -m 0444 /dev/null tree/etc/machine-id < /dev/null

# 23. point resolv.conf to systemd-resolved
as_root ln -sfn ../run/systemd/resolve/stub-resolv.conf tree/etc/resolv.conf < /dev/null

# 24. empty run-time directories
as_root find tree/dev tree/run tree/tmp tree/var/tmp -mindepth 1 -delete < /dev/null

# 25. empty logs and caches
as_root find tree/var/log tree/var/cache/apt tree/var/cache/ldconfig tree/var/lib/apt/lists -type f -delete < /dev/null

# 26. leave out the builder's resolv.conf
as_root find tree/etc -path 'tree/etc/.resolv.conf.*.bak' -delete < /dev/null

# 27. leave out backup and lock files
as_root find tree/etc tree/var/lib tree/var/cache/debconf -type f '(' -name '*-old' -o -name '*.old' -o -path \
    'tree/etc/*-' -o -name .pwd.lock ')' -delete < /dev/null

# 28. leave out secrets and identities
as_root debian-cloud scrub tree < /dev/null

# 29. clamp time stamps
as_root find tree -newermt @1795224967 -exec touch -h -d @1795224967 '{}' + < /dev/null

# 30. pack the tree
as_root env SOURCE_DATE_EPOCH=1795224967 ./in-tree tree tar --create --file /mnt/debian-13-container-amd64-20261121.0.tar.xz \
    '--use-compress-program=xz -2 --threads=0 --block-size=16MiB' --format=pax \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --sort=name --numeric-owner \
    --acls --xattrs '--xattrs-include=*' --mtime=@1795224967 --clamp-mtime --directory=/mnt/tree . < /dev/null

# 31. write down the facts
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
Plan: 775f356556a5d978a1f8cbe835662050937eff1e4f61a707428a573ccd8df189
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

# 32. write hashes and records
debian-cloud seal . < /dev/null
