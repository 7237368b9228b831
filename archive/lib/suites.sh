# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by init and add-suite: check the name of a suite, and print its configuration.
#
# CODENAME-proposed has NotAutomatic and ButAutomaticUpgrades, as Debian's backports; Debian's
# proposed-updates does not, and apt installs everything from there by itself. Suite and codename
# are the same word, so that the codename of `testing` never changes on machines that follow it:
# apt would stop and ask.

# suite_name SUITE: fail unless SUITE is a valid codename. Set $valid_for to the default of ValidFor, which a step in
# Python prints, before anything is written.
suite_name() {
    case $1 in
    [!a-z]* | *[!a-z0-9-]*) wrong "'$1' is not a suite's codename" ;;
    packages | configurations | images | all) wrong "'$1' cannot be a suite's codename: conf/uploaders uses this word" ;;
    esac
    valid_for=$(step suite "$1")
    valid_for=${valid_for#* }
}

# suite_stanza SUITE [FILE]: print the stanza for conf/distributions. Fields that all suites of an archive have in
# common are copied from the first stanza in FILE.
suite_stanza() {
    # As in Debian's backports and experimental, from which apt installs nothing by itself.
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

# first_suite FIELD DEFAULT [FILE]: print the value of the field in the first stanza, or the default.
first_suite() {
    found=''
    [ -z "$3" ] || found=$(awk -v field="$1:" '/^[ \t]*$/ && seen { exit } { seen = 1 }
        tolower($1) == tolower(field) { sub(/^[^:]*:[ \t]*/, ""); print; exit }' "$3")
    printf '%s\n' "${found:-$2}"
}
