# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What init and add-suite write of a suite.
#
# CODENAME-proposed has NotAutomatic and ButAutomaticUpgrades, which Debian gives to backports and
# not to its own proposed-updates, from which apt installs everything by itself. Suite and codename
# are the same word, so that `testing` never changes its codename on machines that follow it: apt
# would stop and ask.

# suite_name SUITE: fail, as `wrong` of the verb does, unless that may be the codename of a suite. Sets $valid_for,
# for how long a signature is good where no suite says otherwise: before anything is written, as Python tells it.
suite_name() {
    case $1 in
    [!a-z]* | *[!a-z0-9-]*) wrong "'$1' is not a suite's codename" ;;
    packages | configurations | images | all) wrong "no suite's codename is '$1', a word of conf/uploaders" ;;
    esac
    valid_for=$(step suite "$1")
    valid_for=${valid_for#* }
}

# suite_stanza SUITE [FILE]: the suite for conf/distributions. What all suites of an archive have in common is
# taken from the first one in FILE.
suite_stanza() {
    # As Debian has it for backports and experimental: apt takes nothing from there by itself.
    about='Packages and disk images for clouds' extra=''
    case $1 in
    *-proposed)
        about="$about, to be tried before they go to ${1%-proposed}"
        extra='NotAutomatic: yes
ButAutomaticUpgrades: yes
'
        ;;
    *-backports)
        extra='NotAutomatic: yes
ButAutomaticUpgrades: yes
'
        ;;
    experimental)
        extra='NotAutomatic: yes
'
        ;;
    esac
    cat <<END
Codename: $1
Suite: $1
Origin: $(first_suite Origin debian-cloud "${2-}")
Label: $(first_suite Label debian-cloud "${2-}")
Description: $about
${extra}Architectures: $(first_suite Architectures 'amd64 arm64 source' "${2-}")
Components: $(first_suite Components 'main contrib' "${2-}")
DebIndices: Packages . .xz
DscIndices: Sources . .xz
Tracking: keep includechanges includebuildinfos
ValidFor: $(first_suite ValidFor "${valid_for:?}" "${2-}")
Uploaders: uploaders.reprepro
ByHandHooks:
 raw-images * * hooks/stage

END
}

# first_suite FIELD DEFAULT [FILE]: its value in the first stanza.
first_suite() {
    found=''
    [ -z "$3" ] || found=$(awk -v field="$1:" '/^[ \t]*$/ && seen { exit } { seen = 1 }
        tolower($1) == tolower(field) { sub(/^[^:]*:[ \t]*/, ""); print; exit }' "$3")
    printf '%s\n' "${found:-$2}"
}
