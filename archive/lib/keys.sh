# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What a verb that deals with keys starts with: conf/keys, and the packages by which machines get them.
#
# conf/keys is what the operator decides; `publish` makes all the rest agree. The keyring package
# is made anew when its content changes. When a key is no longer good, what it alone had signed is
# signed anew, if it is what the state has. A key that should sign and cannot stops the
# publication, because some machines may have no other; an expired one is left out.
#
# On machines the keyring package decides. Signed-By in Release has no effect if a source has one
# of its own, as that package's has; for others it names primaries, without `!`, which apt 2.6
# takes for their subkeys, too, and apt 3 compares with the primary.

# shellcheck source=archive/lib/common.sh
. "${0%/*}/../lib/common.sh"
# shellcheck source=archive/lib/readers.sh
. "${0%/*}/../lib/readers.sh"

# state_of FINGERPRINT: its state in conf/keys, if it is there.
state_of() { conf_keys "$dir/conf/keys" | awk -v key="$1" '$1 == key { print $2; exit }'; }

# say_state FINGERPRINT STATE: in conf/keys, in one step. When it is new there, with the time and its owner.
say_state() {
    cp -p "$dir/conf/keys" "$dir/tmp/keys"
    if grep -qi "^$1" "$dir/tmp/keys"; then
        sed -i "s/^$1 *[^ ]*/$1 $2/I" "$dir/tmp/keys"
    else
        printf '%s %s since=%s %s\n' "$1" "$2" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(owner_of "$1")" >>"$dir/tmp/keys"
    fi
    sync "$dir/tmp/keys"
    mv "$dir/tmp/keys" "$dir/conf/keys"
}
owner_of() { archive_gpg --with-colons --list-keys "$1" | first_owner; }

# have_keys_file: before a key comes of which it must not be thought that it was there already.
have_keys_file() {
    if [ -f "$dir/conf/keys" ]; then return 0; fi
    keys_file >"$dir/tmp/keys"
    mv "$dir/tmp/keys" "$dir/conf/keys"
}

# keys_file: conf/keys of an archive that has none yet: what it does without.
keys_file() {
    cat <<'END_OF_COMMENT'
# The archive's keys, each by its primary's fingerprint, its state, since when it is here, and whose it is.
#   active           signs
#   retired          signs no more; machines still trust what it signed
#   cosigner         a maintainer's, who signs besides (debian-cloud-archive cosign); machines do not trust it alone
#   former-cosigner  was one
#   revoked          no longer to be trusted
# `publish` brings machines the keys that they are to trust, by the keyring package.
END_OF_COMMENT
    archive_gpg --list-secret-keys --with-colons | primaries | while read -r key; do
        printf '%s active %s\n' "$key" "$(owner_of "$key")"
    done
    archive_gpg --list-secret-keys --with-colons | primaries >"$dir/tmp/secret"
    archive_gpg --list-keys --with-colons | primaries | grep -vxF -f "$dir/tmp/secret" | while read -r key; do
        printf '%s retired %s\n' "$key" "$(owner_of "$key")"
    done
    rm -f "$dir/tmp/secret"
}

# named_key ARGUMENT: set $key, the one key of the archive that has this fingerprint, perhaps of a subkey.
named_key() {
    case $1 in
    *[!0-9A-Fa-f]* | '') fail "'$1' is not a fingerprint" "see $dir/conf/keys" 2 ;;
    esac
    key=$(archive_gpg --with-colons --list-keys "$1" 2>/dev/null | primaries) || true
    case $key in
    ????????????????????????????????????????) ;;
    *) fail "the archive has no key $1" "see $dir/conf/keys" 2 ;;
    esac
}

# overlap: for how many days a key must have been in the keyring package before another retires.
overlap() {
    days=$(sed -n 's/ *\(#.*\)\{0,1\}$//; /./{ p; q; }' "$dir/conf/overlap" 2>/dev/null) || true
    case ${days:=30} in
    *[!0-9]* | ?????*) fail "$dir/conf/overlap is not a number of days: $days" "30 is what holds without that file" ;;
    esac
    echo "$days"
}

# longest_without FINGERPRINT: since when, in seconds since 1970, machines get a key that signs besides this one,
# and of several the one that they know best. That is the day in conf/keys, or the key's own.
longest_without() {
    "${steps:?}/keys" "$dir" able 9>&- | cut -d ' ' -f 1 | uniq | grep -vx "$1" | while read -r other; do
        added=$(conf_keys "$dir/conf/keys" | awk -v key="$other" '$1 == key && $3 != "-" { print $3; exit }')
        if [ -n "$added" ]; then
            date -u -d "$added" +%s 2>/dev/null || date +%s # what is not a day is no older than today
        else
            archive_gpg --with-colons --list-keys "$other" | key_rows | awk 'NR == 1 { print $8 }'
        fi
    done | sort -n | head -n 1
}

# other_signs FINGERPRINT: does a key sign besides this one?
other_signs() { "${steps:?}/keys" "$dir" able 9>&- | grep -qv "^$1 "; }

suites() { sed -n 's/^Codename: *//p' "$dir/conf/distributions"; }

# renew_keyring: what machines trust goes to them by apt: one package for each suite, made anew when
# keys or the address are others. NAME-proposed has that of NAME, whose machines may take packages from there.
renew_keyring() {
    [ -s "$dir/conf/url" ] || return 0
    "$steps/keys" "$dir" keyring >"$dir/tmp/keyring" 9>&-
    "$steps/keys" "$dir" everyone >>"$dir/tmp/keyring" 9>&-
    step terms "$dir" >"$dir/tmp/terms" ||
        fail "for how long indexes are good is unknown, and nothing was published" "the reason is above"
    cat "$dir/conf/url" "$dir/tmp/keyring" "$dir/tmp/terms" "$steps/keyring-package" | sha256sum >"$dir/tmp/made-of"
    rm "$dir/tmp/terms"
    rm "$dir/tmp/keyring"
    if cmp -s "$dir/tmp/made-of" "$dir/state/keyring/made-of"; then
        rm "$dir/tmp/made-of"
        return 0
    fi
    begin
    mkdir -p "$next/keyring"
    rm -f "$next/keyring"/*.deb
    for suite in $(suites | grep -v -e '-proposed$'; suites | grep -e '-proposed$'); do
        if [ -f "$next/keyring/${suite%-proposed}.deb" ]; then
            package=$next/keyring/${suite%-proposed}.deb
        else
            package=$next/keyring/$suite.deb
            "$steps/keyring-package" "$dir" "$(cat "$dir/conf/url")" "$suite" "$package" 9>&-
        fi
        archive_reprepro --export=silent-never includedeb "$suite" "$package" >/dev/null
    done
    mv "$dir/tmp/made-of" "$next/keyring/"
    commit
}

# show_keyring: the first package a machine gets is the one that is published; keyring.gpg is what it trusts.
show_keyring() {
    "$steps/keys" "$dir" keyring >"$dir/tmp/keyring" 9>&-
    cmp -s "$dir/tmp/keyring" "$dir/keyring.gpg" || mv "$dir/tmp/keyring" "$dir/keyring.gpg"
    rm -f "$dir/tmp/keyring"
    for package in "$dir/state/keyring"/*.deb; do
        shown=$dir/public/debian-cloud-archive-keyring_${package##*/}
        if [ ! -f "$package" ] || cmp -s "$package" "$shown"; then continue; fi
        cp "$package" "$dir/public/.keyring.new"
        sync "$dir/public/.keyring.new"
        mv "$dir/public/.keyring.new" "$shown"
    done
}

# vouch: when a key is no longer good, what it alone has signed and is still served is signed anew,
# and so are snapshots whose signature has no end.
vouch() {
    "$steps/keys" "$dir" good >"$dir/tmp/good" 9>&-
    # The exit status of grep for files without the line differs from version to version.
    endless=$(find "$dir/signed" -path '*/snap/*/Release' -exec grep -L '^Valid-Until: ' {} +) || true
    if [ -z "$endless" ] && cmp -s "$dir/tmp/good" "$dir/state/keyring/good"; then
        rm "$dir/tmp/good"
        return 0
    fi
    status=0
    if [ -n "$endless" ] ||
        { [ -f "$dir/state/keyring/good" ] && grep -qvxF -f "$dir/tmp/good" "$dir/state/keyring/good"; }; then
        "$steps/vouch" "$dir" 9>&- || status=1
    fi
    begin
    mkdir -p "$next/keyring"
    mv "$dir/tmp/good" "$next/keyring/"
    commit
    return $status
}

# bring_keys: make machines and all that is signed agree with conf/keys.
bring_keys() {
    renew_keyring
    show_state
    show_keyring
    vouch
}
