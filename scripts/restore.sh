#!/bin/sh
# Replaces the database with a backup while the gateway is stopped: verifies the backup, sets
# the old database and all its files aside, installs a synced copy, and undoes everything if
# a step fails. Run by hand, and by drill.sh from cron; never by cron itself.
#
# Usage: restore.sh BACKUP [OPTION]... [--start COMMAND [ARGUMENT]...]
#        restore.sh --repair [--db PATH]
#   --db PATH           AEGIS_DB_PATH   db/aegisagent.db
#   --against PATH      a witness, or a folder of them, kept elsewhere; may be repeated.
#                       The backup's own folder is always included.
#   --without-manifest  accept a backup without its manifest: the chain is still verified,
#                       but not that this is the backup that was taken
#   --ready-max SECONDS how long the start may take (600)
#   --start COMMAND...  the rest of the line: starts the gateway on that database, in the
#                       foreground or through a service manager. It must become ready and
#                       have the backup's head; otherwise it is stopped and all is put back.
#   --repair            finish or undo what a killed run left behind, then exit
#   AEGIS_VERIFIER, AEGIS_GATEWAY       the programs: beside this script, target/release, PATH
#
# At any moment PATH is the old database, the new one, or an empty file on which no gateway
# starts. A killed run leaves PATH.restoring; --repair or the next run completes or undoes it.
# Afterwards the old files are in PATH.bad-<UTC time>/.
#
# Exit status: 0 restored; 1 a step failed and everything is as before; 2 usage error, or a
# missing program or file; 3 the backup is not verified, nothing was touched; 4 a gateway
# holds the database, nothing was touched; 5 a step failed and could not be undone: the
# message says what to do; 129, 130, 143 a signal, everything is as before.
set -eu
umask 077
LC_ALL=C
export LC_ALL

db=${AEGIS_DB_PATH:-db/aegisagent.db}
verifier=${AEGIS_VERIFIER:-}
gateway=${AEGIS_GATEWAY:-}
# The settings of the scripts are none of the gateway's that is started here: it would warn
# of each.
unset AEGIS_VERIFIER AEGIS_GATEWAY AEGIS_URL AEGIS_TOKEN AEGIS_TOKEN_FILE AEGIS_BACKUP_TIMEOUT AEGIS_COPY_OFF \
    AEGIS_PRUNE AEGIS_KEEP_LAST AEGIS_KEEP_DAILY AEGIS_KEEP_WEEKLY AEGIS_KEEP_MONTHLY AEGIS_RECOVER_MAX
backup=
own_manifest=needed
repair_only=no
start=no
ready_max_s=600
phase=before
child=
witnesses=
# Where the files beside a database end: its log, the index of the log, its journal.
sides='-wal -shm -journal'

fail() {
    printf 'restore.sh: %s\n' "$2" >&2
    exit "$1"
}

say() {
    printf 'restore.sh: %s\n' "$*"
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
}

while [ "$#" -gt 0 ]; do
    case $1 in
    --help | -h) usage && exit 0 ;;
    --repair) repair_only=yes ;;
    --without-manifest) own_manifest=missing ;;
    --start)
        start=yes
        shift
        [ "$#" -gt 0 ] || fail 2 '--start needs a command; see --help'
        break
        ;;
    --db | --against | --ready-max)
        [ "$#" -ge 2 ] || fail 2 "$1 needs a value; see --help"
        case $1 in
        --db) db=$2 ;;
        --against) witnesses=$witnesses$2'
' ;;
        --ready-max) ready_max_s=$2 ;;
        esac
        shift
        ;;
    -*) fail 2 "$1 is unknown; see --help" ;;
    *)
        [ -z "$backup" ] || fail 2 'exactly one BACKUP is needed; see --help'
        backup=$1
        ;;
    esac
    shift
done

# absolute PATH: its folder resolved, which must be there
absolute() {
    folder=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd) || return 1
    printf '%s/%s' "${folder%/}" "$(basename -- "$1")"
}

# number OPTION TEXT: without leading zeros, which arithmetic would take for octal
number() {
    case $2 in
    '' | *[!0-9]* | ???????*) fail 2 "$1 $2: expected a whole number below 1000000" ;;
    esac
    printf '%s\n' "$2" | sed 's/^0*\(.\)/\1/'
}

check_arguments() {
    ready_max_s=$(number --ready-max "$ready_max_s")
    # The gateway follows a link to the database; so do we.
    if [ -L "$db" ]; then
        db=$(readlink -f -- "$db") || fail 2 "$db is a link that leads nowhere"
    fi
    [ ! -d "$db" ] || fail 2 "$db is a folder; give the path of the database with --db"
    mkdir -p -- "$(dirname -- "$db")" || fail 2 "the folder of $db cannot be made"
    db=$(absolute "$db") || fail 2 "the folder of $db cannot be entered"
    [ "$repair_only" = no ] || return 0
    [ -n "$backup" ] || fail 2 'exactly one BACKUP is needed; see --help'
    if [ ! -f "$backup" ] || [ ! -r "$backup" ]; then
        fail 2 "$backup cannot be read"
    fi
    backup=$(absolute "$backup")
    [ "$backup" != "$db" ] || fail 2 "$backup is the database itself"
}

set_names() {
    name=${db##*/}
    db_folder=${db%/*}/
    lock=$db.lock
    work=$db.restoring
    old=$work/old
    manifest=$backup.manifest.json
}

is_same_file() {
    [ -e "$1" ] && [ -e "$2" ] || return 1
    [ "$(inode_of "$1")" = "$(inode_of "$2")" ]
}

inode_of() {
    # Of all of ls, only the first field is read: the inode, and no name.
    # shellcheck disable=SC2012
    ls -Ldi -- "$1" | awk '{ print $1; exit }'
}

# find_program NAME GIVEN: prints how it is run
find_program() {
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    if [ -n "$2" ]; then
        command -v "$2"
        return
    fi
    command -v "$here/$1" || command -v "$here/../target/release/$1" || command -v "$1"
}

# ---- the lock: nothing starts on the database while we are at it ----

# What the gateway locks, and as it does: a lock counts while its file has the name.
try_lock() {
    if ! command -v flock >/dev/null 2>&1; then
        is_free_without_flock
        return
    fi
    [ -e "$lock" ] || made_lock=yes
    (: >>"$lock") 2>/dev/null || fail 2 "$lock cannot be written; run this as the gateway's user"
    exec 9>>"$lock"
    flock -n 9 || return 1
    [ ! -e "/proc/$$/fd/9" ] || is_same_file "/proc/$$/fd/9" "$lock" || return 1
    own "$lock"
}

# Less sure: nothing keeps a gateway from starting meanwhile.
is_free_without_flock() {
    asked=no
    if command -v fuser >/dev/null 2>&1; then
        asked=yes
        if fuser "$db" "$lock" >/dev/null 2>&1; then return 1; fi
    fi
    if gateway=$(find_program aegis-gateway "$gateway"); then
        asked=yes
        if AEGIS_DB_PATH=$db AEGIS_BIND_ADDR=127.0.0.1:0 "$gateway" healthcheck >/dev/null 2>&1; then
            return 1
        fi
    fi
    [ "$asked" = yes ] || fail 2 'flock, fuser or aegis-gateway is needed to see whether a gateway runs'
}

take_lock() {
    made_lock=no
    try_lock || {
        made_lock=no
        fail 4 "a gateway or a verifier holds $db; stop it first"
    }
}

# The address of a gateway that was killed goes with its lock file.
release_lock() {
    rm -f -- "$lock" || :
    made_lock=no
    exec 9>&-
}

# ---- the files ----

# As root, files belong to whoever the database belongs to.
own() {
    [ "$(id -u)" = 0 ] || return 0
    reference=$db
    [ -e "$reference" ] || reference=$db_folder
    # shellcheck disable=SC2012
    chown "$(ls -ldn -- "$reference" | awk '{ print $3 ":" $4; exit }')" "$1"
}

sync_paths() {
    # Where sync(1) takes no paths, everything is synced.
    sync "$@" 2>/dev/null || sync
}

# keep FROM TO: a second name for a file, or a copy where there are no hard links
keep() {
    [ -e "$1" ] || return 0
    rm -f -- "$2" && { ln -- "$1" "$2" 2>/dev/null || cp -p -- "$1" "$2"; }
}

free_name() {
    stamp=$(date -u +%Y%m%dT%H%M%SZ)
    candidate=$db.$1-$stamp
    count=1
    while [ -e "$candidate" ]; do
        count=$((count + 1))
        candidate=$db.$1-$stamp-$count
    done
    printf '%s' "$candidate"
}

# In one step: what follows is decided by which files are in the folder.
dispose_of_work() {
    rm -rf -- "$work.done" && mv -- "$work" "$work.done" && rm -rf -- "$work.done"
}

digest() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum <"$1"
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 <"$1"
    else
        return 1
    fi | sed 's/[^0-9a-f].*//'
}

# ---- the steps ----

# verify FILE WITNESS...: and those that were given
verify() {
    while IFS= read -r witness; do
        [ -z "$witness" ] || set -- "$@" "$witness"
    done <<END
$witnesses
END
    file=$1
    shift
    if [ "$#" -gt 0 ]; then
        # A witness of another history is none; another backup that is damaged is no matter.
        "$verifier" "$file" --require-witness --path-only --against "$@"
    else
        "$verifier" "$file"
    fi
}

prove_backup() {
    if [ -f "$manifest" ]; then
        set -- "${backup%/*}"
    elif [ "$own_manifest" = missing ]; then
        # The later witnesses of the folder would take the older backup for a cut one.
        set --
    else
        fail 3 "$manifest is missing; put it back, or accept less proof with --without-manifest"
    fi
    verdict=$(verify "$backup" "$@" 2>&1) ||
        fail 3 "$backup is not proven, nothing was touched: $verdict"
    say "$verdict"
}

# Until the last line nothing but $work is written to.
prepare() {
    rm -rf -- "$work.done"
    mkdir -- "$work" "$old"
    own "$work"
    own "$old"
    cp -- "$backup" "$work/new.partial"
    chmod 600 "$work/new.partial"
    own "$work/new.partial"
    check_copy "$work/new.partial"
    for suffix in '' $sides .identity; do
        keep "$db$suffix" "$old/$name$suffix"
    done
    [ ! -e "$db" ] || : >"$work/had-database"
    printf '%s\n' "$backup" >"$work/backup"
    sync_paths "$work/new.partial" "$old" "$work"
    mv -- "$work/new.partial" "$work/new"
    : >"$work/installing"
    sync_paths "$work"
}

# The copy is what was proven: read once more, since the backup may have changed.
check_copy() {
    found=$(digest "$1") || found=
    # Without a digest, or with a program that failed at making one.
    if [ "${#found}" -ne 64 ]; then
        cmp -s -- "$backup" "$1" || fail 3 "$backup changed while it was copied; nothing was touched"
        return
    fi
    for witness in "$manifest" "$backup.sha256"; do
        [ -f "$witness" ] || continue
        grep -q -- "$found" "$witness" || fail 3 "$backup is not what $witness says; nothing was touched"
    done
}

# One rename, and PATH is the new database. The log beside it is the old one's; the
# gateway would set it aside too.
install_copy() {
    mv -f -- "$work/new" "$db"
    for side in $sides; do
        rm -f -- "$db$side"
    done
    sync_paths "$db" "$db_folder"
}

# The new database stays. What is beside it is the old one's only if it is the same file.
finish() {
    trap '' HUP INT TERM
    for side in $sides; do
        ! is_same_file "$db$side" "$old/$name$side" || rm -f -- "$db$side"
    done
    sync_paths "$db" "$db_folder"
    if [ -d "$old" ] && ! rmdir -- "$old" 2>/dev/null; then
        aside=$(free_name bad)
        # For the run after a kill. Where there is no room for it, the restore still stands.
        printf '%s\n' "$aside" 2>/dev/null >"$work/aside" || :
        mv -- "$old" "$aside"
    else
        aside=$(cat -- "$work/aside" 2>/dev/null) || aside=
    fi
    # From here on there is nothing to put back, and what is left is the next run's to clear.
    phase=restored
    [ ! -d "$aside" ] || say "the old database is in $aside; keep it until the restore is confirmed" || :
    sync_paths "$db_folder" || :
    dispose_of_work || say "$work could not be removed" >&2
}

is_installed() {
    [ -e "$work/installing" ] && [ ! -e "$work/new" ]
}

is_put_back() {
    if [ -e "$work/had-database" ]; then
        [ ! -e "$old/$name" ]
    else
        [ -e "$work/taken-away" ]
    fi
}

# Each step may be repeated. No gateway starts on an empty database: between the two,
# no log can meet the wrong one.
undo() {
    : >"$work/undoing" || return 1
    if ! is_put_back; then
        if [ -s "$db" ]; then
            keep_failed || return 1
        fi
        { : >"$work/empty" && own "$work/empty" && mv -f -- "$work/empty" "$db"; } || return 1
        for suffix in $sides .identity; do
            { rm -f -- "$db$suffix" && keep "$old/$name$suffix" "$db$suffix"; } || return 1
        done
        sync_paths "$db_folder" || return 1
        if [ -e "$work/had-database" ]; then
            mv -f -- "$old/$name" "$db" || return 1
        else
            mv -f -- "$db" "$work/taken-away" || return 1
        fi
    fi
    sync_paths "$db_folder" || return 1
    if [ -e "$work/started" ] && [ -d "$work/failed" ] && ! cmp -s -- "$work/failed/$name" "$(cat -- "$work/backup")"; then
        failed=$(free_name failed)
        mv -- "$work/failed" "$failed" || return 1
        say "what the started gateway wrote is in $failed" >&2
    fi
    dispose_of_work
}

keep_failed() {
    rm -rf -- "$work/failed" && mkdir -- "$work/failed" && own "$work/failed" || return 1
    for suffix in '' $sides; do
        keep "$db$suffix" "$work/failed/$name$suffix" || return 1
    done
}

# Brings to an end what a killed run began.
repair() {
    rm -rf -- "$work.done"
    [ -d "$work" ] || return 0
    if [ -e "$work/undoing" ]; then
        undo || fail 5 "$work: an interrupted restore cannot be undone; make room, and repeat this"
        say 'an interrupted restore was undone: the old database is back'
    elif is_installed; then
        finish
        say 'an interrupted restore was finished: the restored database is in place'
    else
        dispose_of_work
        say 'an interrupted restore was cleared away; it had not touched the database'
    fi
}

# ---- the start ----

# The gateway writes its address into its lock file once it listens.
is_ready() {
    address=$(cat -- "$lock" 2>/dev/null) || return 1
    case $address in
    0.0.0.0:*) address=127.0.0.1:${address##*:} ;;
    '[::]:'*) address="[::1]:${address##*:}" ;;
    *:*) ;;
    *) return 1 ;;
    esac
    curl -q --silent --fail --globoff --noproxy '*' --max-time 5 --output /dev/null "http://$address/readyz"
}

start_gateway() {
    AEGIS_DB_PATH=$db
    export AEGIS_DB_PATH
    : >"$work/started"
    "$@" &
    child=$!
    deadline=$(($(date +%s) + ready_max_s))
    until is_ready; do
        if [ -n "$child" ] && ! kill -0 "$child" 2>/dev/null; then
            wait "$child" || fail 1 "the gateway did not start: '$*' ended with $?"
            # A service manager's client, which has done its work.
            child=
        fi
        [ "$(date +%s)" -lt "$deadline" ] || fail 1 "the gateway was not ready within $ready_max_s seconds"
        sleep 0.1 2>/dev/null || sleep 1
    done
}

check_head() {
    if [ -f "$manifest" ]; then
        set -- "$manifest"
    else
        set --
    fi
    verdict=$(verify "$db" "$@" 2>&1) || fail 1 "the started gateway does not hold the backup's history: $verdict"
    say "ready on $address; $verdict"
}

stop_gateway() {
    [ -n "$child" ] || return 0
    deadline=$(($(date +%s) + 30))
    kill "$child" 2>/dev/null || :
    while kill -0 "$child" 2>/dev/null; do
        [ "$(date +%s)" -lt "$deadline" ] || kill -9 "$child" 2>/dev/null || :
        sleep 0.1 2>/dev/null || sleep 1
    done
    child=
}

# ---- the end, whatever happens ----

clean_up() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    if [ "$phase" = working ] && [ -d "$work" ]; then
        put_back || cannot_undo
        say 'all is as before' >&2
    fi
    [ "${made_lock:-no}" = no ] || rm -f -- "$lock"
    exit "$status"
}

put_back() {
    if ! is_installed; then
        dispose_of_work
        return
    fi
    if [ -e "$work/started" ]; then
        : >"$work/undoing"
        stop_gateway
        try_lock || return 1
    fi
    undo
}

cannot_undo() {
    printf 'restore.sh: the old database could not be put back; stop the gateway, and run: %s\n' \
        "restore.sh --repair --db $db" >&2
    exit 5
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
check_arguments
set_names
if [ "$repair_only" = no ]; then
    verifier=$(find_program aegis-verify-receipts "$verifier") ||
        fail 2 'aegis-verify-receipts is not found; build it: cargo build --release; or set AEGIS_VERIFIER to its path'
    if [ "$start" = yes ]; then
        command -v curl >/dev/null 2>&1 || fail 2 'curl is needed for --start; install it first'
    fi
fi
take_lock
repair
[ "$repair_only" = no ] || exit 0
prove_backup
phase=working
prepare
install_copy
if [ "$start" = no ]; then
    finish
    release_lock
    say "restored to $db; start the gateway, then see that /readyz answers"
    exit 0
fi
release_lock
start_gateway "$@"
check_head
finish
