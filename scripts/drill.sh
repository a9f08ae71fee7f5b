#!/bin/sh
# Disaster drill: restores a backup into a temporary folder, starts a gateway on it, checks
# its health, counts, head and chain against the manifest, requests one decision, and removes
# everything. It reads only the backups; the live database, its folder and its gateway are
# never touched. scripts/systemd/crontab runs it weekly, and cron mails the report.
#
# Usage: drill.sh [OPTION]... [BACKUP]     the newest one, by the time in its manifest
#   --backup-dir FOLDER  AEGIS_BACKUP_DIR  backups
#   --recover-max S      AEGIS_RECOVER_MAX 600   seconds until the restored gateway is ready
#   --quiet              print the report only when the drill fails
#   TMPDIR               where the copy is made; needs room for twice the backup  /tmp
#   AEGIS_GATEWAY, AEGIS_VERIFIER          the programs: beside this script, target/release, PATH
#
# The recovery time runs from the first access to the backup until the gateway is ready.
#
# Exit status: 0 passed; 1 the drill failed, and the report says at which step; 2 usage error,
# missing program or no backup; 3 the backup is not verified; 129, 130, 143 a signal.
set -eu
umask 077
LC_ALL=C
export LC_ALL

backup_dir=${AEGIS_BACKUP_DIR:-backups}
recover_max_s=${AEGIS_RECOVER_MAX:-600}
gateway=${AEGIS_GATEWAY:-}
verifier=${AEGIS_VERIFIER:-}
base=${TMPDIR:-/tmp}
base=${base%/}
backup=
quiet=no
folder=

fail() {
    printf 'drill.sh: %s\n' "$2" >&2
    exit "$1"
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
}

# number OPTION TEXT: without leading zeros, which arithmetic would take for octal
number() {
    case $2 in
    '' | *[!0-9]* | ???????*) fail 2 "$1 $2: expected a whole number below 1000000" ;;
    esac
    printf '%s\n' "$2" | sed 's/^0*\(.\)/\1/'
}

while [ "$#" -gt 0 ]; do
    case $1 in
    --help | -h) usage && exit 0 ;;
    --quiet) quiet=yes ;;
    --backup-dir | --recover-max)
        [ "$#" -ge 2 ] || fail 2 "$1 needs a value; see --help"
        case $1 in
        --backup-dir) backup_dir=$2 ;;
        --recover-max) recover_max_s=$2 ;;
        esac
        shift
        ;;
    -*) fail 2 "$1 is unknown; see --help" ;;
    *)
        [ -z "$backup" ] || fail 2 'at most one BACKUP is taken; see --help'
        backup=$1
        ;;
    esac
    shift
done
recover_max_s=$(number --recover-max "$recover_max_s")

# find_program NAME GIVEN: prints how it is run
find_program() {
    if [ -n "$2" ]; then
        command -v "$2"
        return
    fi
    command -v "$here/$1" || command -v "$here/../target/release/$1" || command -v "$1"
}

find_programs() {
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    command -v curl >/dev/null 2>&1 || fail 2 'curl is needed; install it first'
    gateway=$(find_program aegis-gateway "$gateway") ||
        fail 2 'aegis-gateway is not found; build it: cargo build --release; or set AEGIS_GATEWAY to its path'
    verifier=$(find_program aegis-verify-receipts "$verifier") ||
        fail 2 'aegis-verify-receipts is not found; build it: cargo build --release; or set AEGIS_VERIFIER to its path'
    [ -f "$here/restore.sh" ] || fail 2 "$here/restore.sh is missing"
}

# member NAME: the first of that name in the JSON on standard input, text or number
member() {
    awk -v name="\"$1\"[ \t]*:[ \t]*" '
    { text = text $0 }
    END {
        if (!match(text, name)) exit
        rest = substr(text, RSTART + RLENGTH)
        if (rest ~ /^"/) { rest = substr(rest, 2); sub(/".*/, "", rest) } else sub(/[^0-9].*/, "", rest)
        print rest
    }'
}

newest_backup() {
    for path in "$backup_dir"/*.manifest.json; do
        file=${path%.manifest.json}
        if [ -f "$path" ] && [ -f "$file" ]; then
            printf '%s %s\n' "$(member created_at <"$path")" "$file"
        fi
    done | sort | sed -n '$s/^[^ ]* //p'
}

choose_backup() {
    if [ -z "$backup" ]; then
        backup=$(newest_backup)
        [ -n "$backup" ] || fail 2 "$backup_dir holds no backup with its manifest"
    fi
    [ -f "$backup" ] || fail 2 "$backup cannot be read"
    backup=$(CDPATH='' cd -- "$(dirname -- "$backup")" && pwd)/${backup##*/}
    manifest=$backup.manifest.json
    [ -f "$manifest" ] || fail 3 "$manifest is missing: there is nothing to check the backup against"
}

# ---- the temporary folder, and the gateway in it ----

is_running() {
    [ -s "$1/gateway.pid" ] || return 1
    # Not another process that has got its number: its database is in the folder.
    tr '\0' '\n' 2>/dev/null <"/proc/$(cat -- "$1/gateway.pid")/environ" |
        grep -q -x -F -- "AEGIS_DB_PATH=$1/db/aegisagent.db"
}

# end_gateway FOLDER: the one that runs in it; a second SIGTERM would cut it short
end_gateway() {
    is_running "$1" || return 0
    kill "$(cat -- "$1/gateway.pid")" 2>/dev/null || :
    tries=150
    while is_running "$1"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || kill -9 "$(cat -- "$1/gateway.pid")" 2>/dev/null || :
        pause
    done
}

end() {
    end_gateway "$1"
    rm -rf -- "$1"
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

# What a killed drill left goes with the next one.
sweep() {
    for left in "$base"/aegis-drill.*; do
        # Ours alone; its name ends with the number of the drill that made it, and it holds
        # what a drill makes first.
        case ${left##*.} in '' | *[!0-9]*) continue ;; esac
        [ -n "$(find "$left" -prune -type d -user "$(id -u)" 2>/dev/null)" ] || continue
        [ -d "$left/db" ] || [ -z "$(ls -A -- "$left")" ] || continue
        kill -0 "${left##*.}" 2>/dev/null || end "$left"
    done
}

make_folder() {
    folder=$base/aegis-drill.$$
    mkdir -- "$folder" 2>/dev/null || {
        left=$folder
        folder=
        fail 2 "$left cannot be made; see TMPDIR"
    }
    mkdir -- "$folder/db" "$folder/backups"
    db=$folder/db/aegisagent.db
    report=$folder/report
}

clean_up() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    if [ -n "$folder" ]; then
        if [ "$status" -ne 0 ] || [ "$quiet" = no ]; then
            [ ! -f "$report" ] || cat -- "$report" || :
            [ "$status" -eq 0 ] || printf 'the drill FAILED with status %s\n' "$status"
        fi
        if [ "$status" -ne 0 ] && [ -s "$folder/log" ]; then
            sed 's/^/  /' "$folder/log" >&2
        fi
        end "$folder"
    fi
    exit "$status"
}

# ---- time: milliseconds where date knows them ----

now_ms() {
    now=$(date +%s%3N)
    case $now in
    *[!0-9]*) now=$(date +%s)000 ;;
    esac
    printf '%s' "$now"
}

seconds_since() {
    spent=$(($(now_ms) - $1))
    printf '%d.%02d s' $((spent / 1000)) $((spent % 1000 / 10))
}

line() {
    printf '%-18s %s\n' "$1" "$2" >>"$report"
}

# ---- the steps ----

# The gateway of the drill knows nothing of the live one: a clean environment, a port and
# a token of its own. Its process keeps the number that is written down before.
restore() {
    started=$(now_ms)
    status=0
    # shellcheck disable=SC2016
    AEGIS_VERIFIER=$verifier sh "$here/restore.sh" "$backup" --db "$db" --ready-max "$recover_max_s" --start \
        env -i "PATH=$PATH" "AEGIS_DB_PATH=$db" "AEGIS_BACKUP_DIR=$folder/backups" \
        AEGIS_BIND_ADDR=127.0.0.1:0 sh -c 'echo "$$" >"$1" && exec "$2" 2>"$3"' \
        drill "$folder/gateway.pid" "$gateway" "$folder/log" >"$folder/restore" 2>&1 || status=$?
    recovered=$(seconds_since "$started")
    [ "$status" -eq 0 ] || {
        line 'restore' "failed with status $status: $(cat -- "$folder/restore")"
        [ "$status" -ne 3 ] || exit 3
        exit 1
    }
    line 'time to recover' "$recovered (proven, restored, started, ready)"
}

# get PATH, post PATH BODY: as the drill's operator
get() {
    printf 'Authorization: Bearer %s\n' "$token" |
        curl -q --silent --show-error --fail --noproxy '*' --max-time 60 --header @- "$url$1"
}

post() {
    printf 'Authorization: Bearer %s\n' "$token" |
        curl -q --silent --show-error --fail --noproxy '*' --max-time 60 --header @- --data "$2" "$url$1"
}

step_failed() {
    line "$1" "FAILED: $2"
    exit 1
}

expect() {
    [ "$2" = "$3" ] || step_failed "$1" "expected $2, found $3"
}

check_health() {
    url=http://$(cat -- "$db.lock")
    token=$(cat -- "$folder/db/admin.token")
    for probe in /health /readyz; do
        get "$probe" >/dev/null || step_failed health "$probe does not answer 200"
    done
    line health '/health and /readyz answer 200'
}

# A start on a restored file may append one receipt of the restore, right after the
# backup's head; nothing else may follow it.
check_head() {
    head_seq=$(member seq <"$manifest")
    head_hash=$(member receipt_hash <"$manifest")
    head=$(get /v1/receipts/chain-head) || step_failed head 'the gateway does not tell it'
    seq=$(printf '%s' "$head" | member seq)
    hash=$(printf '%s' "$head" | member receipt_hash)
    appended=0
    if [ "$hash" != "$head_hash" ]; then
        appended=1
        expect head "seq $((head_seq + 1)) after $head_hash" \
            "seq ${seq:-0} after $(printf '%s' "$head" | member prev_receipt_hash)"
    fi
    line head "seq $head_seq is the manifest's, $head_hash"
}

check_counts() {
    receipts=$(member receipts <"$manifest")
    decisions=$(member decisions <"$manifest")
    counted=$(count_with "$db")
    expect counts "$((receipts + appended)) receipts" "$(printf '%s' "$counted" | member receipts) receipts"
    found=$(printf '%s' "$counted" | member decisions)
    [ "$found" = "$decisions" ] || expect counts "$((decisions + appended)) decisions" "$found decisions"
    line counts "$receipts receipts and $decisions decisions, as the manifest says"
}

count_with() {
    "$verifier" --json "$1" --require-witness --against "$manifest" 2>>"$folder/log" ||
        step_failed chain "not verified against the manifest; see the log below"
}

# A tool, an agent and one call that the policy allows, in the copy alone.
decide() {
    answer=$(post /v1/tools '{"skill_key":"aegis-drill","name":"Drill","type":"drill","actions":[{
        "action_key":"read","risk":"low","mutates_state":false,"approval_required":false,
        "default_decision":"policy"}]}') || step_failed decision "the tool is refused: $answer"
    answer=$(post /v1/agents/register '{"agent_key":"aegis-drill","name":"Drill",
        "environment":"production","risk_tier":"low"}') || step_failed decision "the agent is refused: $answer"
    token=$(printf '%s' "$answer" | member agent_token)
    answer=$(post /v1/authorize '{"tool":"aegis-drill","action":"read","resource":"drill",
        "mutates_state":false,"parameters":{},"source_trust":"trusted_internal_signed"}') ||
        step_failed decision "the call is refused: $answer"
    expect decision allow "$(printf '%s' "$answer" | member decision)"
    expect decision "a receipt after $hash" "a receipt after $(printf '%s' "$answer" | member prev_receipt_hash)"
    line decision 'one more was allowed, and its receipt follows'
}

# The stopped copy, with what the drill added, still holds the backup's history.
check_chain() {
    end_gateway "$folder"
    counted=$(count_with "$db")
    expect chain "$((receipts + appended + 1)) receipts" "$(printf '%s' "$counted" | member receipts) receipts"
    line chain 'verified to the end, against the manifest, after a clean stop'
}

find_programs
choose_backup
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
sweep
make_folder
began=$(now_ms)
line drill "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
line backup "$backup, $(wc -c <"$backup" | tr -d ' ') bytes, of $(member created_at <"$manifest")"
restore
check_health
check_head
check_counts
decide
check_chain
line 'time in all' "$(seconds_since "$began")"
line result 'passed'
