# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by every verb: errors, arguments, the lock, the state, gpg and reprepro.
#
# The archive's state is one directory: DIR/state, a link to states/N, with
# db/ (reprepro's) and images/SUITE (the records of all images that were ever
# accepted). It is never changed in place: `begin` copies it, `commit` makes the
# copy the state in one rename. So an interrupted verb has taken effect completely
# or not at all, and files in public/ that the state does not list are not part of
# the archive yet.

# printable: filter standard input for a terminal, the journal and a log: file names and messages of tools are not
# trusted. Control characters (ASCII and C1) and direction marks become "?"; what is not UTF-8 is removed.
printable() {
    LC_ALL=C tr '\000-\010\013-\037\177' '?' | { iconv -c -f UTF-8 -t UTF-8 || :; } |
        LC_ALL=C sed 's/\xc2[\x80-\x9f]/?/g; s/\xe2\x80[\x8b-\x8f\xa8-\xaf]/?/g; s/\xe2\x81[\xa0-\xaf]/?/g'
}

# one_line TEXT: print one printable line. Most texts are printable already.
one_line() {
    case $1 in
    *[!\ -~]*) printf '%s\n' "$1" | tr '\n' ' ' | cut -b -4000 | printable | sed 's/ *$//' ;;
    *) printf '%.4000s\n' "$1" ;;
    esac
}

# fail SENTENCE HINT [STATUS]: print an error and exit: 1 is a refusal, 2 is wrong use. Its priority in the journal is 3.
fail() {
    prefix=''
    [ -z "${JOURNAL_STREAM-}" ] || [ "$JOURNAL_STREAM" != "$(stat -L -c %d:%i /dev/fd/2)" ] || prefix='<3>'
    printf '%serror: %s\n' "$prefix" "$(one_line "$1")" >&2
    [ -z "$2" ] || printf 'hint: %s\n' "$(one_line "$2")" >&2
    told=yes
    exit "${3:-1}"
}

# wrong SENTENCE: refuse the arguments of the running verb.
wrong() { fail "$1" "debian-cloud-archive ${0##*/} --help" 2; }

# print_help: print the header comment of the running verb.
print_help() {
    printf 'usage: debian-cloud-archive '
    sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
    exit 0
}

# arguments OPTIONS "$@": sort the arguments of the running verb; --help prints its header.
#
# OPTIONS are those that the verb takes, as in '--now --suite=', where "=" stands for a value; any other is refused.
# After `--` no argument is an option. $options, $operands ($count of them) and $sorted (the options, `--`, the
# operands) refer to the arguments, for `eval "set -- $sorted"`. Option and value become one word: --suite=VALUE.
arguments() {
    known=" $1 " number=0 count=0 expected=option options='' operands=''
    shift
    for argument; do
        number=$((number + 1))
        case $expected:$argument in
        value:?*) options="$options \"$name=\${$number}\"" expected=option ;;
        value:) break ;;
        option:-h | option:--help) print_help ;;
        option:--) expected=operand ;;
        option:-?*) option ;;
        *) operands="$operands \"\${$number}\"" count=$((count + 1)) ;;
        esac
    done
    [ "$expected" != value ] || wrong "$name needs a value"
    # shellcheck disable=SC2034 # the verbs use it
    sorted="$options -- $operands"
}

# option: sort $argument, an option of which $known is expected to have the name.
option() {
    name=${argument%%=*}
    case $name in
    *[!a-z-]*) unknown_option ;; # it could match several words of $known
    esac
    case $known:$argument in
    *" $name= "*:*=?*) options="$options \"\${$number}\"" ;;
    *" $name= "*:*=) wrong "$name needs a value" ;;
    *" $name= "*) expected=value ;;
    *" $name "*:"$name") options="$options $name" ;;
    *" $name "*) wrong "$name takes no value" ;;
    *) unknown_option ;;
    esac
}
unknown_option() { fail "unknown option $name" "debian-cloud-archive ${0##*/} --help shows the options" 2; }

# need TOOL…: fail unless all of them are installed.
need() {
    for tool; do
        command -v "$tool" >/dev/null || fail "$tool is missing" "apt install $(package_of "$tool")"
    done
}

# package_of TOOL: its package, as debian_cloud.host.tools has it; most have the same name.
package_of() {
    case $1 in
    dpkg-deb) echo dpkg ;;
    gpg) echo gnupg ;;
    xz) echo xz-utils ;;
    *) echo "$1" ;;
    esac
}

# step STEP [ARGUMENT…]: run a step in Python (debian_cloud.archive.steps), and return its status. The interpreter is
# that of /usr/bin/debian-cloud, and no module comes from the working directory (-P). A step does not hold the lock.
# DEBIAN_CLOUD_PYTHON is for tests.
step() {
    PYTHONPATH=$(modules) "${DEBIAN_CLOUD_PYTHON:-/usr/bin/python3}" -P -m debian_cloud.archive.steps "$@" 9>&-
}

# step_within SECONDS GRACE STEP [ARGUMENT…]: the same, terminated after SECONDS, and killed GRACE later (timeout(1)).
step_within() {
    limit=$1 grace=$2
    shift 2
    PYTHONPATH=$(modules) timeout --foreground --kill-after="$grace" "$limit" \
        "${DEBIAN_CLOUD_PYTHON:-/usr/bin/python3}" -P -m debian_cloud.archive.steps "$@" 9>&-
}

# modules: print the value for PYTHONPATH. If the package is installed, Python finds debian_cloud by itself; in a
# checkout or an unpacked package, it is found relative to this program. No component is empty, which would be the
# working directory.
modules() {
    path=${PYTHONPATH-}
    case $0 in
    /usr/share/debian-cloud-archive/*) ;;
    *)
        for place in "${0%/*}/../../src" "${0%/*}/../../../lib/python3/dist-packages"; do
            [ ! -d "$place/debian_cloud/archive/steps" ] || path=$place${path:+:$path}
        done
        ;;
    esac
    printf %s "$path"
}

is_archive() {
    [ -f "$1/conf/distributions" ] || fail "$1 is not an archive" "create one: debian-cloud-archive init $1" 2
}

# open_archive DIR [--any-clock]: set $dir, lock the archive until exit, and complete an
# interrupted publication. Nothing is done if the clock cannot be right.
open_archive() {
    is_archive "$1"
    dir=$(readlink -f -- "$1")
    steps=$(readlink -f "${0%/*}/../steps")
    exec 9>>"$dir/lock"
    # Only `add` waits for a unit that is running.
    flock --timeout "${DEBIAN_CLOUD_ARCHIVE_WAIT:-0}" 9 ||
        fail "another debian-cloud-archive is using $dir" "try again when it has ended"
    [ "${2-}" = --any-clock ] || "$steps/clock" "$dir" ||
        fail "nothing was done" "clients refuse a publication that is dated in the future until that date"
    find_agent "$dir"
    trap 'ended $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    # The hooks are those of this program, which may have moved.
    ln -sfnT "$(readlink -f "${0%/*}/../hooks")" "$dir/conf/hooks"
    enter_suite
    db=$dir/state/db
    rm -f "$dir/state/db/lockfile" # a killed reprepro's; ours is held
    # An older version did not record what it signed: only then is the signature trusted.
    if [ ! -d "$dir/signed" ]; then
        own_keyring
        step adopt "$dir" --keyring "$dir/tmp/own.gpg"
    fi
    "$steps/show" "$dir" 9>&-
}

# enter_suite: move the configuration files of add-suite to their places; some may have been moved already.
enter_suite() {
    [ -d "$dir/adding" ] || return 0
    for file in "$dir"/adding/*/*; do
        if [ -f "$file" ]; then mv -f "$file" "$dir/${file#"$dir/adding/"}"; fi
    done
    sync "$dir/conf" "$dir/dput"
    rm -rf "$dir/adding"
}

# own_keyring: write the public keys of the archive to tmp/own.gpg.
own_keyring() { "$steps/keys" "$dir" keyring >"$dir/tmp/own.gpg" 9>&-; }

# as_signed: fail unless the files in public/ are those that the archive signed last.
as_signed() {
    own_keyring
    step shown "$dir" --keyring "$dir/tmp/own.gpg"
}

# ended STATUS: the EXIT trap of a verb; if a tool failed without a message of ours, exit 1.
ended() {
    end_agent "$dir"
    # A state that was begun and not committed is removed, or `check` would report an interrupted run.
    [ -z "${next-}" ] || [ "$(readlink "$dir/state")" = "states/${next##*/}" ] || [ "$1" -ge 128 ] || rm -rf "$next"
    if [ "$1" = 0 ] || [ "$1" -ge 128 ] || [ "$1${told-}" = 2yes ]; then return 0; fi
    say_if_full
    exit 1
}

# say_if_full: report a full disk, for which tools often give another reason.
say_if_full() {
    [ "$(df --output=avail -k "$dir" | tail -n 1)" -lt 1024 ] || return 0
    printf 'error: there is no space left on the disk of %s\n' "$dir" >&2
    printf 'hint: nothing is lost or half published: free some space, and run it again\n' >&2
}

# wrong_use STATUS: exit after the message of a step; its status 2 is wrong use of the verb, too.
wrong_use() {
    [ "$1" != 2 ] || told=yes
    exit "$1"
}

# copy_folder FOLDER TO: copy it unchanged. The first line of the errors is enough.
copy_folder() {
    said=$(cp -a --reflink=auto "$1" "$2" 2>&1) || {
        printf '%s\n' "$said" | head -n 1 | printable >&2
        exit 1
    }
}

# begin: copy the state to $next, which verbs change and which is not visible.
begin() {
    now=$(readlink "$dir/state")
    find "$dir/states" -mindepth 1 -maxdepth 1 ! -name "${now##*/}" -exec rm -rf {} +
    next=$dir/states/$((${now##*/} + 1))
    copy_folder "$dir/$now" "$next"
    touch "$next/begun"
    db=$next/db
}

# commit: make $next the state. New files of the pool are synced to the disk first.
commit() {
    find "$next" -type f -exec sync {} +
    find "$dir/public/pool" -type f -newercm "$next/begun" -exec sync {} + 2>/dev/null || true
    ln -sfn "states/${next##*/}" "$dir/.state"
    mv -T "$dir/.state" "$dir/state"
    sync "$dir" "$dir/states"
    rm -rf "${dir:?}/$now"
    db=$dir/state/db
}

# show_state: publish the current state. $wrong_clock is --after-wrong-clock or empty.
show_state() {
    "$steps/stage" "$dir" anew ${wrong_clock:+"$wrong_clock"} 9>&- ||
        fail "nothing more was published, the indexes are unchanged" "see the message above"
    "$steps/show" "$dir" 9>&-
    sed -n 's/^Archive serial: /published: serial /p' "$dir/public/project/trace/master"
}

# The agent that gpg starts for the archive's key must not outlive the verb
# or hold its lock. An agent that ran before is the operator's, and keeps running:
# it may know a passphrase, or the PIN of a card.
archive_gpg() { gpg --homedir "$dir/gnupg" --batch --yes --quiet "$@" 9>&-; }
find_agent() {
    # If tmp/agent exists, a verb that was killed has left its own agent.
    [ -e "$1/tmp/agent" ] ||
        agent=$(gpg-connect-agent --homedir "$1/gnupg" --no-autostart 'GETINFO pid' /bye 2>/dev/null 9>&-) || true
    [ -n "${agent-}" ] || touch "$1/tmp/agent"
}
end_agent() {
    [ -z "${agent-}" ] || return 0
    stop_agent "$1/gnupg"
    rm -f "$1/tmp/agent"
}

# stop_agent HOME: end the agent of a GnuPG home, and return when its process has ended. gpgconf returns earlier,
# and until then the agent accepts connections and removes its sockets. After 10 seconds the process is killed.
stop_agent() {
    process=$(timeout 10 gpg-connect-agent --homedir "$1" --no-autostart 'GETINFO pid' /bye 2>/dev/null 8>&- 9>&- |
        sed -n 's/^D //p')
    [ -n "$process" ] || return 0
    timeout 10 gpgconf --homedir "$1" --kill gpg-agent 8>&- 9>&- || true
    if ! has_ended "$process"; then
        kill -KILL "$process" 2>/dev/null || true
        # The kernel ends it when it comes to it.
        has_ended "$process" || true
    fi
}

# has_ended PID: wait at most 10 seconds until the process has ended; fail if it has not.
has_ended() {
    tenths=100
    while is_running "$1"; do
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
        tenths=$((tenths - 1))
    done
}

# is_running PID: a process that has ended stays as a zombie until its parent asks for its status (proc(5)).
is_running() {
    case $(cat "/proc/$1/stat" 2>/dev/null) in
    '' | *') Z '* | *') X '*) return 1 ;;
    esac
}

# Uploads are checked against the uploaders' keyring, never the archive's own.
archive_reprepro() { GNUPGHOME=$dir/uploaders reprepro --basedir "$dir" --dbdir "$db" "$@" 9>&-; }

# log_line TEXT [PRIORITY]: print one event as a line on standard output and to log/accept.log. If standard output
# is the journal, the line has the PRIORITY there (sd-daemon(3); 4 is a warning, the default is information).
log_line() { log_lines "$(one_line "$1")" "${2-}"; }
# log_lines LINES [PRIORITY]: the same for several events, one a line.
log_lines() {
    { stream=$(stat -L -c %d:%i /dev/fd/3); } 3>&1
    prefix='' events=$(printf '%s\n' "$1" | printable)
    [ "${JOURNAL_STREAM-}" != "$stream" ] || prefix=${2:+<$2>}
    printf '%s\n' "$events" | sed "s/^/$prefix/"
    printf '%s\n' "$events" | sed "s/^/$(date -u +%Y-%m-%dT%H:%M:%SZ) /" >>"$dir/log/accept.log"
}
