# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What the scripts read of conf/keys, of what gpg lists, and of image records: each here and nowhere else.
#
# A row is words with one blank between them; "-" is an absent word.
#
# A publication reads keys a dozen times, and Python needs longer to start than gpg to answer:
# so this is awk. A test compares these readers with Python's.

# conf_keys FILE: FINGERPRINT STATE SINCE of each line of conf/keys; SINCE is the time after since=. Nothing without it.
conf_keys() {
    [ ! -f "$1" ] || awk 'NF && !/^#/ {
        print toupper($1), $2 == "" ? "-" : $2, $3 ~ /^since=./ ? substr($3, 7) : "-"
    }' "$1"
}

# wrong_key FILE: the first line of conf/keys that names no key and state, if there is one.
wrong_key() {
    [ ! -f "$1" ] || awk 'NF && !/^#/ && ($1 !~ /^[0-9A-Fa-f]*$/ || length($1) != 40 ||
        $2 !~ /^(active|retired|cosigner|former-cosigner|revoked)$/) { print; exit }' "$1"
}

# key_rows: of what gpg --with-colons lists (gnupg, doc/DETAILS), a row for each key and subkey:
# PRIMARY KEY ID KIND VALIDITY ALGORITHM BITS CREATED EXPIRES MAY SECRET OWNER. The first two are fingerprints, KIND
# is pub, sub, sec or ssb, times are in seconds since 1970, and OWNER is the rest of the row.
key_rows() {
    awk -F: '
        function tell(i) { for (i = 1; i <= n; i++) print primary, row[i], owner; n = 0 }
        function word(value) { return value == "" ? "-" : value }
        $1 == "pub" || $1 == "sec" { tell(); primary = owner = "" }
        $1 ~ /^(pub|sub|sec|ssb)$/ {
            rest = word($5) " " $1 " " word($2) " " word($4) " " word($3) " " word($6) " " word($7) " " word($12) " " word($15)
        }
        $1 == "fpr" && rest != "" { if (primary == "") primary = $10; row[++n] = $10 " " rest; rest = "" }
        $1 == "uid" && owner == "" { owner = $10; gsub(/\\x3a/, ":", owner) }
        END { tell() }'
}

# primaries: of the same, the fingerprints of the primary keys.
primaries() { key_rows | awk '$1 == $2 { print $1 }'; }

# first_owner: of the same, whose the first key is.
first_owner() { key_rows | cut -d ' ' -f 12- | head -n 1; }

# has_secret: is there a secret key in the same?
has_secret() { key_rows | awk '$4 == "sec" { found = 1 } END { exit !found }'; }

# last_change: of what gpg --with-colons --list-sigs lists, when the youngest of the keys was made, or changed by itself.
last_change() {
    awk -F: '
        $1 == "pub" { id = $5 }
        ($1 == "pub" || $1 == "sub" || $1 == "sig" && $5 == id) && $6 > newest { newest = $6 }
        END { print newest + 0 }'
}

# record_rows [FILE…]: of image records and of indexes of images (one stanza a file of an image), the rows
# "image DIRECTORY ARCHITECTURE STATUS BUILDINFO" and "file BITS PATH HASH", of each hash that they have.
record_rows() {
    awk '
        function tell(n, directory) {
            directory = v["Filename:"] != "" ? v["Filename:"] : v["Buildinfo:"]
            if (sub("/[^/]*$", "", directory))
                print "image", directory, word(v["Architecture:"]), word(v["Status:"]), word(v["Buildinfo:"])
            for (n = 256; n <= 512; n += 256) {
                file(n, v["Filename:"], v["SHA" n ":"])
                file(n, v["Buildinfo:"], v["Buildinfo-SHA" n ":"])
            }
            split("", v)
        }
        function file(bits, path, hash) { if (path != "" && hash != "") print "file", bits, path, hash }
        function word(value) { return value == "" ? "-" : value }
        FNR == 1 { tell() }
        /^[A-Z][A-Za-z0-9-]*: / { v[$1] = $2 }
        /^[A-Z]/ { attested = $1 == "Attestations:" }
        attested && /^ / { file(256, $3, $1) }
        /^$/ { tell() }
        END { tell() }' "$@"
}
