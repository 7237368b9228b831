# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by verbs that deal with keys: conf/keys, and the packages by which machines get them.
#
# conf/keys records the operator's decisions; `publish` makes everything else agree with it. The
# keyring package is rebuilt when its content changes. When a key is no longer valid, files that
# only this key had signed are signed again, if the state has them. A key that should sign and
# cannot stops the publication, because some machines may have no other; an expired one is left out.
#
# On machines the keyring package decides. Signed-By in Release has no effect if the source has one
# of its own, as in that package; for others it names primary keys, without `!`, which apt 2.6
# also accepts for their subkeys, and apt 3 compares with the primary key.

# shellcheck source=archive/lib/common.sh
. "${0%/*}/../lib/common.sh"
# shellcheck source=archive/lib/readers.sh
. "${0%/*}/../lib/readers.sh"

# state_of FINGERPRINT: print its state in conf/keys, if it is there.
state_of() { conf_keys "$dir/conf/keys" | awk -v key="$1" '$1 == key { print $2; exit }'; }

# say_state FINGERPRINT STATE: set it in conf/keys, in one step. A new key gets the time and its owner.
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

# have_keys_file: make conf/keys before a key is added; later the new key would be recorded as an old one.
have_keys_file() {
    if [ -f "$dir/conf/keys" ]; then return 0; fi
    keys_file >"$dir/tmp/keys"
    mv "$dir/tmp/keys" "$dir/conf/keys"
}

# keys_file: print conf/keys for an archive without one, with the keys as they are used now.
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

# named_key FINGERPRINT: set $key to the archive's primary key with this fingerprint, or with such a subkey.
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

# overlap: print for how many days a key must have been in the keyring package before another one is retired.
overlap() {
    days=$(sed -n 's/ *\(#.*\)\{0,1\}$//; /./{ p; q; }' "$dir/conf/overlap" 2>/dev/null) || true
    case ${days:=30} in
    *[!0-9]* | ?????*) fail "$dir/conf/overlap is not a number of days: $days" "write a number, or remove the file for the default of 30" ;;
    esac
    echo "$days"
}

# longest_without FINGERPRINT: print since when machines have had another key that signs, in seconds since 1970: of
# several keys the earliest time. It is the time in conf/keys, or that of the key itself.
longest_without() {
    "${steps:?}/keys" "$dir" able 9>&- | cut -d ' ' -f 1 | uniq | grep -vx "$1" | while read -r other; do
        added=$(conf_keys "$dir/conf/keys" | awk -v key="$other" '$1 == key && $3 != "-" { print $3; exit }')
        if [ -n "$added" ]; then
            date -u -d "$added" +%s 2>/dev/null || date +%s # an invalid time counts as now
        else
            archive_gpg --with-colons --list-keys "$other" | key_rows | awk 'NR == 1 { print $8 }'
        fi
    done | sort -n | head -n 1
}

# other_signs FINGERPRINT: does another key sign, too?
other_signs() { "${steps:?}/keys" "$dir" able 9>&- | grep -qv "^$1 "; }

suites() { sed -n 's/^Codename: *//p' "$dir/conf/distributions"; }

# renew_keyring: build the keyring package of each suite again if the keys (tmp/machines) or the address have changed.
# NAME-proposed has that of NAME, whose machines may install packages from there.
renew_keyring() {
    [ -s "$dir/conf/url" ] || return 0
    cp "$dir/tmp/machines" "$dir/tmp/keyring"
    "$steps/keys" "$dir" everyone >>"$dir/tmp/keyring" 9>&-
    # What the terms are read from is compared first, as it seldom changes.
    from=$(cat "$dir/conf/url" "$dir/tmp/keyring" "$dir/conf/distributions" "$steps/keyring-package" | sha256sum)
    if [ "$(cat "$dir/state/keyring/made-from" 2>/dev/null)" = "$from" ]; then
        rm "$dir/tmp/keyring"
        return 0
    fi
    step terms "$dir" >"$dir/tmp/terms" ||
        fail "the ValidFor of a suite is unknown; nothing was published" "see the message above"
    cat "$dir/conf/url" "$dir/tmp/keyring" "$dir/tmp/terms" "$steps/keyring-package" | sha256sum >"$dir/tmp/made-of"
    rm "$dir/tmp/terms"
    rm "$dir/tmp/keyring"
    begin
    mkdir -p "$next/keyring"
    printf '%s\n' "$from" >"$next/keyring/made-from"
    if cmp -s "$dir/tmp/made-of" "$dir/state/keyring/made-of"; then
        rm "$dir/tmp/made-of"
        commit
        return 0
    fi
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

# show_beside FILE NAME: update a file at the top of public/.
show_beside() {
    if [ ! -f "$1" ] || cmp -s "$1" "$dir/public/$2"; then return 0; fi
    cp "$1" "$dir/public/.keyring.new"
    chmod 644 "$dir/public/.keyring.new"
    sync "$dir/public/.keyring.new"
    mv "$dir/public/.keyring.new" "$dir/public/$2"
}

# show_keyring: update the keyring packages in public/, which machines install by hand first, and keyring.gpg;
# the keys (tmp/machines) are also there as files, for clients that are not apt.
show_keyring() {
    keys=$dir/tmp/machines name=debian-cloud-archive-keyring
    show_beside "$keys" "$name.gpg"
    # As gpg --armor --export writes them (RFC 9580, 6.2).
    archive_gpg --enarmor <"$keys" |
        sed '/^Comment: /d; s/ PGP ARMORED FILE-----$/ PGP PUBLIC KEY BLOCK-----/' >"$keys.asc"
    grep -q '^-----END PGP PUBLIC KEY BLOCK-----$' "$keys.asc" ||
        fail "the keys cannot be written with armour" "see the message above"
    show_beside "$keys.asc" "$name.asc"
    cmp -s "$keys" "$dir/keyring.gpg" || mv "$keys" "$dir/keyring.gpg"
    rm -f "$keys" "$keys.asc"
    for package in "$dir/state/keyring"/*.deb; do
        show_beside "$package" "${name}_${package##*/}"
    done
}

# vouch: sign again the served files that only a key that is no longer valid has signed, and snapshots whose
# signature has no expiry date.
vouch() {
    "$steps/keys" "$dir" good >"$dir/tmp/good" 9>&-
    # The exit status of grep for files without the line differs from version to version.
    endless=$(find "$dir/signed" -path '*/snap/*/Release' -exec grep -L '^Valid-Until: ' {} +) || true
    if [ -z "$endless" ] && cmp -s "$dir/tmp/good" "$dir/state/keyring/good"; then
        rm "$dir/tmp/good"
        return 0
    fi
    status=0 again=''
    if [ -n "$endless" ] ||
        { [ -f "$dir/state/keyring/good" ] && grep -qvxF -f "$dir/tmp/good" "$dir/state/keyring/good"; }; then
        "$steps/vouch" "$dir" 9>&- || status=1
        again=yes
    fi
    begin
    mkdir -p "$next/keyring"
    mv "$dir/tmp/good" "$next/keyring/"
    [ -z "$again" ] || carry
    commit
    # The index of all files has the hashes of the signatures.
    [ -z "$again" ] || show_state
    return $status
}

# carry: enter the files beside images that no record lists into $next, as they are served.
carry() {
    own_keyring
    mkdir -p "$next/files"
    step carry "$dir" "$next" --keyring "$dir/tmp/own.gpg"
    rm "$dir/tmp/own.gpg"
}

# carry_first: the same for an archive of an older version, whose state has none.
carry_first() {
    [ ! -d "$dir/state/files" ] || return 0
    begin
    carry
    commit
}

# bring_keys: make the keyring packages, the indexes and all signatures agree with conf/keys.
bring_keys() {
    carry_first
    "$steps/keys" "$dir" keyring >"$dir/tmp/machines" 9>&-
    renew_keyring
    show_state
    show_keyring
    vouch
}
