#!/bin/sh
# Takes a backup of the running gateway, verifies the file against every witness in its
# folder, copies it elsewhere, and only then prunes older ones. Silent on success, so mail
# from cron means trouble. The interval is how much history you can afford to lose:
# scripts/systemd/crontab runs it hourly.
#
# Usage: backup.sh [OPTION]...      flag, environment, default:
#   --url URL            AEGIS_URL             http://127.0.0.1:8080
#   --token-file FILE    AEGIS_TOKEN_FILE      db/admin.token; a token with scope "backup" is
#                                              enough. AEGIS_TOKEN is the token itself.
#   --backup-dir FOLDER  AEGIS_BACKUP_DIR      backups: the gateway's, as seen from here
#   --verifier PATH      AEGIS_VERIFIER        beside this script, target/release, PATH
#   --timeout SECONDS    AEGIS_BACKUP_TIMEOUT  3600
#   --copy-off COMMAND   AEGIS_COPY_OFF        run by sh -c, with the paths of the file, its
#                        manifest and its .sha256 as $1 $2 $3, and in the environment as
#                        AEGIS_BACKUP_FILE, AEGIS_BACKUP_MANIFEST, AEGIS_BACKUP_SHA256
#   --prune              AEGIS_PRUNE=yes       remove backups that no rule below keeps
#   --keep-last N        AEGIS_KEEP_LAST       keep the newest N
#   --keep-daily N       AEGIS_KEEP_DAILY      keep the newest of each of the last N days that
#                                              have one
#   --keep-weekly N      AEGIS_KEEP_WEEKLY     likewise by ISO week; days and weeks are in UTC
#   --keep-monthly N     AEGIS_KEEP_MONTHLY    likewise by month
#   --dry-run            take no backup, remove nothing, print a reason for each file
#   --verbose            print each step
#
# A 503 with Retry-After, as during another backup, is retried up to six times.
#
# Only auto-<UTC time>.db and its .sha256 are ever removed. The newest backup, backups with
# other names, backups that by their manifest are of another chain than the one just taken,
# and all manifests are always kept: manifests pin the history.
#
# Exit status: 0 done; 1 no backup: the gateway was unreachable or refused; 2 usage error, or
# a missing program, folder or token; 3 the backup exists but is not verified; 4 the copy
# failed; 5 pruning failed; 6 another run is in progress; 7 no room on the gateway's disk; 8
# the backup is verified and copied, but another one in the folder is damaged: move that away
# without its manifest; 129, 130, 143 a signal. After 1, 2, 3, 4, 6, 7 and 8 nothing was
# pruned.
set -eu
umask 077
LC_ALL=C
export LC_ALL

url=${AEGIS_URL:-http://127.0.0.1:8080}
token_file=${AEGIS_TOKEN_FILE:-db/admin.token}
backup_dir=${AEGIS_BACKUP_DIR:-backups}
verifier=${AEGIS_VERIFIER:-}
timeout_s=${AEGIS_BACKUP_TIMEOUT:-3600}
copy_off=${AEGIS_COPY_OFF:-}
prune=${AEGIS_PRUNE:-no}
keep_last=${AEGIS_KEEP_LAST:-0}
keep_daily=${AEGIS_KEEP_DAILY:-0}
keep_weekly=${AEGIS_KEEP_WEEKLY:-0}
keep_monthly=${AEGIS_KEEP_MONTHLY:-0}
dry_run=no
verbose=no
token=${AEGIS_TOKEN:-}
# Out of the environment, so that no program started here has it.
unset AEGIS_TOKEN

fail() {
    printf 'backup.sh: %s\n' "$2" >&2
    exit "$1"
}

say() {
    [ "$verbose" = no ] || printf 'backup.sh: %s\n' "$*"
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
}

parse() {
    while [ "$#" -gt 0 ]; do
        case $1 in
        --prune) prune=yes && shift && continue ;;
        --dry-run) dry_run=yes && shift && continue ;;
        --verbose) verbose=yes && shift && continue ;;
        --help | -h) usage && exit 0 ;;
        esac
        [ "$#" -ge 2 ] || fail 2 "$1 is unknown or needs a value; see --help"
        case $1 in
        --url) url=$2 ;;
        --token-file) token_file=$2 ;;
        --backup-dir) backup_dir=$2 ;;
        --verifier) verifier=$2 ;;
        --timeout) timeout_s=$2 ;;
        --copy-off) copy_off=$2 ;;
        --keep-last) keep_last=$2 ;;
        --keep-daily) keep_daily=$2 ;;
        --keep-weekly) keep_weekly=$2 ;;
        --keep-monthly) keep_monthly=$2 ;;
        *) fail 2 "$1 is unknown; see --help" ;;
        esac
        shift 2
    done
}

# number OPTION TEXT: without leading zeros, which arithmetic would take for octal
number() {
    case $2 in
    '' | *[!0-9]* | ???????*) fail 2 "$1 $2: expected a whole number below 1000000" ;;
    esac
    printf '%s\n' "$2" | sed 's/^0*\(.\)/\1/'
}

check_policy() {
    timeout_s=$(number --timeout "$timeout_s")
    keep_last=$(number --keep-last "$keep_last")
    keep_daily=$(number --keep-daily "$keep_daily")
    keep_weekly=$(number --keep-weekly "$keep_weekly")
    keep_monthly=$(number --keep-monthly "$keep_monthly")
    case $prune in
    yes | no) ;;
    *) fail 2 "AEGIS_PRUNE=$prune: expected yes or no" ;;
    esac
    [ "$dry_run" = no ] || prune=yes
    rules=$((keep_last + keep_daily + keep_weekly + keep_monthly))
    if [ "$prune" = yes ] && [ "$rules" -eq 0 ]; then
        fail 2 'pruning with no --keep rule would remove everything; give at least one'
    fi
    if [ "$prune" = no ] && [ "$rules" -gt 0 ]; then
        fail 2 'a --keep rule does nothing without --prune; give both, or see with --dry-run'
    fi
}

check_folder() {
    [ -d "$backup_dir" ] || fail 2 "$backup_dir is no folder; give the gateway's with --backup-dir"
    # Absolute, for the copy off; and a leading '-' is then no option.
    backup_dir=$(CDPATH='' cd -- "$backup_dir" && pwd) || fail 2 "$backup_dir cannot be entered"
}

find_programs() {
    command -v curl >/dev/null 2>&1 || fail 2 'curl is needed; install it first'
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    if [ -n "$verifier" ]; then
        command -v "$verifier" >/dev/null 2>&1 || fail 2 "$verifier cannot be run"
        return
    fi
    for verifier in "$here/aegis-verify-receipts" "$here/../target/release/aegis-verify-receipts" \
        aegis-verify-receipts; do
        ! command -v "$verifier" >/dev/null 2>&1 || return 0
    done
    fail 2 'aegis-verify-receipts is not found; build it: cargo build --release; or give its path with --verifier'
}

read_token() {
    if [ -z "$token" ]; then
        [ -r "$token_file" ] || fail 2 "$token_file cannot be read; give a token's file with --token-file"
        # Of a link, as a container mounts a secret, the target counts.
        [ -z "$(find -H "$token_file" -prune -perm -004)" ] ||
            fail 2 "$token_file can be read by everybody; chmod 600 it"
        IFS= read -r token <"$token_file" || [ -n "$token" ] || fail 2 "$token_file is empty"
    fi
}

# One run at a time. The kernel lets go of the lock when its holder dies.
take_lock() {
    lock=$backup_dir/.backup.lock
    if command -v flock >/dev/null 2>&1; then
        (: >>"$lock") 2>/dev/null || fail 2 "$lock cannot be written; run this as the gateway's user"
        exec 9>>"$lock"
        flock -n 9 || fail 6 "another run is at work (it holds $lock)"
    else
        mkdir "$lock.d" 2>/dev/null ||
            fail 6 "another run is at work; if none is, after a crash: rmdir $lock.d"
        folder_lock=$lock.d
    fi
}

# What a killed run left goes with the next one.
make_work_folder() {
    work=$backup_dir/.backup.work
    rm -rf -- "$work"
    mkdir "$work" || fail 2 "$work cannot be made; run this as the gateway's user"
}

clean_up() {
    status=$?
    trap '' HUP INT TERM
    [ -z "${work:-}" ] || rm -rf -- "$work"
    [ -z "${folder_lock:-}" ] || rmdir "$folder_lock"
    exit "$status"
}

# The token goes through a pipe, where ps does not look; not through a proxy either.
request() {
    printf 'Authorization: Bearer %s\n' "$token" |
        curl -q --silent --show-error --noproxy '*' --connect-timeout 10 --max-time "$timeout_s" \
            --header @- --data "{\"filename\":\"$name\"}" --output "$work/answer" --dump-header "$work/head" \
            --write-out '%{http_code}' "$url/v1/admin/backup" 2>"$work/error"
}

# The seconds after which the gateway wants to be asked again, if it says so: no more than 99.
retry_after() {
    awk 'tolower($1) == "retry-after:" && $2 ~ /^[0-9][0-9]?\r?$/ { print $2 + 0; exit }' "$work/head"
}

# member NAME: of the gateway's answer
member() {
    sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p' "$work/answer" 2>/dev/null
}

take_backup() {
    names_left=2
    turns_left=6
    while :; do
        name=auto-$(date -u +%Y%m%dT%H%M%SZ).db
        code=$(request) || fail 1 "no backup: $url: $(cat "$work/error")"
        wait_s=
        case $code in
        # Another second, another name.
        409) [ "$names_left" -eq 0 ] || { wait_s=1 && names_left=$((names_left - 1)); } ;;
        # Most often, another backup runs.
        503) [ "$turns_left" -eq 0 ] || { wait_s=$(retry_after) && turns_left=$((turns_left - 1)); } ;;
        esac
        [ -n "$wait_s" ] || break
        say "$(member message); asking again in $wait_s s"
        sleep "$wait_s"
    done
    case $code in
    200 | 201) ;;
    507) fail 7 "no backup, no room: $(member message)" ;;
    *) fail 1 "no backup: $url answers $code: $(member message)" ;;
    esac
    file=$backup_dir/$name
    say "took $file"
}

prove() {
    for path in "$file" "$file.manifest.json" "$file.sha256"; do
        [ -f "$path" ] || fail 3 "$path is missing: does the gateway write its backups to another folder?"
    done
    altered=
    if "$verifier" "$file" --require-witness --against "$backup_dir" >"$work/verdict" 2>&1; then
        say "$(cat "$work/verdict")"
        return
    fi
    # The damage of an older backup is no reason to be without this one.
    "$verifier" "$file" --require-witness --path-only --against "$backup_dir" >"$work/alone" 2>&1 ||
        fail 3 "$file is not proven; nothing was pruned: $(cat "$work/verdict")"
    altered=$(cat "$work/verdict")
}

copy_off() {
    [ -n "$copy_off" ] || return 0
    status=0
    AEGIS_BACKUP_FILE=$file AEGIS_BACKUP_MANIFEST=$file.manifest.json AEGIS_BACKUP_SHA256=$file.sha256 \
        sh -c "$copy_off" copy-off "$file" "$file.manifest.json" "$file.sha256" \
        >"$work/copy-off" 2>&1 </dev/null 9>&- || status=$?
    [ "$status" -eq 0 ] ||
        fail 4 "the copy off failed with $status; nothing was pruned: $(cat "$work/copy-off")"
    say "copied off: $(cat "$work/copy-off")"
}

# Our own names alone, the newest first: the name is the time.
list_backups() {
    for path in "$backup_dir"/auto-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z.db; do
        if [ -f "$path" ] && [ ! -L "$path" ]; then
            printf '%s\n' "${path##*/}"
        fi
    done | sort -r
}

# chain_of NAME: as its manifest says; nothing where there is none
chain_of() {
    sed -n 's/.*"chain_id": *"\([0-9a-f]*\)".*/\1/p' "$backup_dir/$1.manifest.json" 2>/dev/null || :
}

# "NAME CHAIN" of each backup. After a loss of the database, or in a folder that gateways
# share, the ones of another chain are nobody's to replace.
with_chains() {
    while read -r listed; do
        printf '%s %s\n' "$listed" "$(chain_of "$listed")"
    done
}

# Reads names and chains, newest first; writes "keep NAME REASON" or "prune NAME REASON". In
# a dry run, the newest stands for the one to be made.
plan() {
    awk -v last="$keep_last" -v daily="$keep_daily" -v weekly="$keep_weekly" -v monthly="$keep_monthly" \
        -v made="${name:-}" -v own="$([ -z "${name:-}" ] || chain_of "$name")" '
    # Days since 1970-01-01, of the proleptic Gregorian calendar.
    function day_number(y, m, d,    era, yoe, doy) {
        if (m <= 2) y--
        era = int(y / 400); yoe = y - era * 400
        doy = int((153 * (m + (m > 2 ? -3 : 9)) + 2) / 5) + d - 1
        return era * 146097 + yoe * 365 + int(yoe / 4) - int(yoe / 100) + doy - 719468
    }
    # An ISO week is named by its Thursday.
    function iso_week(y, day,    thursday) {
        thursday = day - (day + 3) % 7 + 3
        if (thursday < day_number(y, 1, 1)) y--
        if (thursday >= day_number(y + 1, 1, 1)) y++
        return sprintf("%04d-W%02d", y, int((thursday - day_number(y, 1, 1)) / 7) + 1)
    }
    function because(reason) { why = why (why == "" ? "" : ", ") reason }
    # The newest of a period, while the rule still has periods to give.
    function period(rule, limit, key) {
        if (((rule, key) in seen) || count[rule] >= limit) return
        seen[rule, key] = 1; count[rule]++
        because(rule " " key)
    }
    {
        y = substr($1, 6, 4) + 0; m = substr($1, 10, 2) + 0; d = substr($1, 12, 2) + 0
        # Not a time that this script gives: not its file.
        if (y < 1970 || m < 1 || m > 12 || d < 1 || d > 31 || substr($1, 15, 2) > 23) next
        if (own == "") own = $2
        if ($2 != "" && $2 != own) {
            print "keep", $1, "of another chain"
            next
        }
        why = ""; position++
        if (position == 1) because("the newest")
        if ($1 == made) because("just made")
        if (position <= last) because("last " position)
        date = sprintf("%04d-%02d-%02d", y, m, d)
        period("daily", daily, date)
        period("weekly", weekly, iso_week(y, day_number(y, m, d)))
        period("monthly", monthly, substr(date, 1, 7))
        if (why == "") print "prune", $1, "no rule keeps it"
        else print "keep", $1, why
    }'
}

# The digest goes first: after a kill in between, the next run still finds the database.
prune_backups() {
    [ "$prune" = yes ] || return 0
    list_backups | with_chains | plan >"$work/plan"
    while read -r verb victim reason; do
        if [ "$dry_run" = yes ]; then
            printf '%s  %s: %s\n' "$victim" "$verb" "$reason"
            continue
        fi
        say "$victim  $verb: $reason"
        [ "$verb" = prune ] || continue
        rm -f -- "$backup_dir/$victim.sha256" "$backup_dir/$victim" ||
            fail 5 "$backup_dir/$victim cannot be removed"
    done <"$work/plan"
}

parse "$@"
url=${url%/}
check_policy
check_folder
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if [ "$dry_run" = yes ]; then
    take_lock
    make_work_folder
    prune_backups
    exit 0
fi
find_programs
read_token
take_lock
make_work_folder
take_backup
prove
copy_off
[ -z "$altered" ] || fail 8 "$file is proven, but another backup is damaged; nothing was pruned: $altered"
prune_backups
