# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Readers of conf/keys, of gpg's listings, and of image records; no other script parses them.
#
# They print rows of words separated by one blank; "-" stands for an absent word.
#
# They are awk, because a publication reads keys a dozen times and Python starts slowly. A test compares them with
# the readers in Python.

# conf_keys FILE: print FINGERPRINT STATE SINCE for each line of conf/keys, if it exists; SINCE is the value of since=.
conf_keys() {
    [ ! -f "$1" ] || awk 'NF && !/^#/ {
        print toupper($1), $2 == "" ? "-" : $2, $3 ~ /^since=./ ? substr($3, 7) : "-"
    }' "$1"
}

# wrong_key FILE: print the first line of conf/keys that is not a key and a state, if there is one.
wrong_key() {
    [ ! -f "$1" ] || awk 'NF && !/^#/ && ($1 !~ /^[0-9A-Fa-f]*$/ || length($1) != 40 ||
        $2 !~ /^(active|retired|cosigner|former-cosigner|revoked)$/) { print; exit }' "$1"
}

# key_rows: filter the output of gpg --with-colons (gnupg, doc/DETAILS) to one row for each key and subkey:
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

# primaries: filter the same to the fingerprints of the primary keys.
primaries() { key_rows | awk '$1 == $2 { print $1 }'; }

# first_owner: filter the same to the owner of the first key.
first_owner() { key_rows | cut -d ' ' -f 12- | head -n 1; }

# has_secret: does the same list a secret key?
has_secret() { key_rows | awk '$4 == "sec" { found = 1 } END { exit !found }'; }

# last_change: print the latest time in the output of gpg --with-colons --list-sigs at which a key was made, or changed
# by its own signature.
last_change() {
    awk -F: '
        $1 == "pub" { id = $5 }
        ($1 == "pub" || $1 == "sub" || $1 == "sig" && $5 == id) && $6 > newest { newest = $6 }
        END { print newest + 0 }'
}

# record_rows [FILE…]: print for image records and indexes of images (one stanza for each file of an image) the rows
# "image DIRECTORY ARCHITECTURE STATUS BUILDINFO", and "file BITS PATH HASH" for each hash.
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
