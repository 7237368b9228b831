# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by copy and promote: compare two suites, and copy packages from one to the other.
#
# Packages are copied by source package, because binary packages of one build belong together.
# The keyring package belongs to its suite and is never copied.
#
# Debian empties proposed-updates at a point release, since its users also follow stable. Here a
# machine follows one suite, as with unstable and testing, so FROM keeps its packages.

# shellcheck source=archive/lib/common.sh
. "${0%/*}/../lib/common.sh"

# open_suites DIR FROM TO: open the archive, and set $from and $to.
open_suites() {
    open_archive "$1"
    from=$2 to=$3
    suites=$(sed -n 's/^Codename: *//p' "$dir/conf/distributions")
    for suite in "$from" "$to"; do
        printf '%s\n' "$suites" | grep -qxF -e "$suite" ||
            fail "the archive has no suite '$suite'" "it has $(echo "$suites" | tr '\n' ' ')" 2
    done
    [ "$from" != "$to" ] || fail "FROM and TO are both $from" "name two different suites" 2
    holding "$from" >"$dir/tmp/from"
    holding "$to" >"$dir/tmp/to"
}

# holding SUITE: print its packages, one "SOURCE SOURCE-VERSION PACKAGE ARCHITECTURE VERSION" a line.
holding() {
    # shellcheck disable=SC2016 # reprepro's own variables
    archive_reprepro --list-format '${$source} ${$sourceversion} ${package} ${$architecture} ${version}\n' \
        list "$1" | awk '$3 != "debian-cloud-archive-keyring"' | sort -u
}

# latest FILE SOURCE: print the highest version of a source package in one of the two lists, if it is there.
latest() {
    awk -v source="$2" '$1 == source { print $2 }' "$1" | sort -u | {
        last=''
        while read -r version; do
            if dpkg --compare-versions "$version" gt "$last"; then last=$version; fi
        done
        printf '%s\n' "$last"
    }
}

# foreign SOURCE: print a package of it in $from that $to has from another source, as "PACKAGE SOURCE", if any.
foreign() {
    touch "$dir/tmp/given"
    sed 's/#.*//' "$dir/conf/overrides" >"$dir/tmp/given" 2>/dev/null || true
    awk -v source="$1" '
        list == "given" { given[$1 " " $2] = 1 }
        list == "to" && $1 != source { other[$3] = $1 }
        list == "from" && $1 == source && ($3 in other) && !(($3 " " source) in given) { print $3, other[$3]; exit }
    ' list=given "$dir/tmp/given" list=to "$dir/tmp/to" list=from "$dir/tmp/from"
    rm "$dir/tmp/given"
}

# compared SOURCE: print newer, same, older or foreign: $from compared with $to. One older package makes it older.
compared() {
    answer=same
    if [ -n "$(foreign "$1")" ]; then
        echo foreign
        return
    fi
    if dpkg --compare-versions "$(latest "$dir/tmp/from" "$1")" lt "$(latest "$dir/tmp/to" "$1")"; then answer=older; fi
    awk -v source="$1" '
        list == "to" { have[$3 " " $4] = $5 }
        list == "from" && $1 == source { print $5, have[$3 " " $4] }
    ' list=to "$dir/tmp/to" list=from "$dir/tmp/from" >"$dir/tmp/versions"
    while read -r here there; do
        if [ -n "$there" ] && dpkg --compare-versions "$here" lt "$there"; then
            answer=older
        elif [ "$answer:$here" != "same:$there" ] && [ "$answer" != older ]; then
            answer=newer
        fi
    done <"$dir/tmp/versions"
    rm "$dir/tmp/versions"
    echo "$answer"
}

# require SOURCE: fail unless it may be copied from $from to $to.
require() {
    if ! cut -d ' ' -f 1 "$dir/tmp/from" | grep -qxF -e "$1"; then
        source=$(awk -v package="$1" '$3 == package { print $1; exit }' "$dir/tmp/from")
        if [ -n "$source" ]; then
            fail "$1 is a binary package of the source package $source, which is copied as a unit" "name $source"
        elif [ "$1" = debian-cloud-archive-keyring ]; then
            fail "each suite has its own keyring package, which names that suite" "\`publish\` makes it"
        elif grep -qsF "/$1" "$dir/state/images/$from"; then
            fail "$1 is an image of $from: an image belongs to one suite, named in its path and its record" \
                "build it for $to (debian-cloud build), and upload it"
        fi
        fail "$from has no source package '$1'" "it has $(cut -d ' ' -f 1 "$dir/tmp/from" | sort -u | tr '\n' ' ')"
    fi
    if [ "$(compared "$1")" = foreign ]; then
        other=$(foreign "$1")
        fail "$1 has the package ${other% *}, which $to has from ${other#* }" \
            "a package belongs to one source; to give it to $1, add the line '${other% *} $1' to $dir/conf/overrides"
    fi
    if [ "$(compared "$1")" = older ]; then
        fail "$to has $1 $(latest "$dir/tmp/to" "$1"), $from has the older $(latest "$dir/tmp/from" "$1")" \
            "machines do not downgrade: upload it again with a higher version"
    fi
}

# carry SOURCE…: copy all of them in one step, or none; $from keeps them.
carry() {
    begin
    for source; do
        archive_reprepro --export=silent-never copysrc "$to" "$from" "$source" >"$dir/tmp/said" 2>&1 ||
            fail "$source cannot be copied to $to: $(head -n 1 "$dir/tmp/said")" "nothing was changed"
    done
    # reprepro skips packages that it does not accept with a message and status 0.
    holding "$to" >"$dir/tmp/to"
    for source; do
        missing=$(awk -v source="$source" '$1 == source' "$dir/tmp/from" | grep -vxF -f "$dir/tmp/to" | head -n 1) || true
        [ -z "$missing" ] || fail "$source cannot be copied to $to: it does not accept $missing" "nothing was changed"
    done
    commit
    for source; do
        count=$(awk -v source="$source" '$1 == source { print $3 }' "$dir/tmp/from" | sort -u | wc -l)
        log_line "copied: $source $(latest "$dir/tmp/from" "$source"): $from -> $to, packages: $count"
    done
    rm -f "$dir/tmp/from" "$dir/tmp/to" "$dir/tmp/said"
    echo "to publish: debian-cloud-archive publish $dir"
}
