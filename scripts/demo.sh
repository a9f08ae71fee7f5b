#!/bin/sh
# Fills a running gateway with a believable day: agents, tools, decisions of all kinds.
#
# Usage: sh scripts/demo.sh
#   AEGIS_URL      the gateway            (http://127.0.0.1:8080)
#   ADMIN_TOKEN    the operator's token   (else read from db/admin.token)
#
# Exit status: 0 done; 1 the gateway refused something; 2 no gateway or no token.
set -eu

url=${AEGIS_URL:-http://127.0.0.1:8080}
url=${url%/}

fail() {
    printf 'demo.sh: %s\n' "$2" >&2
    exit "$1"
}

if [ -z "${ADMIN_TOKEN:-}" ]; then
    [ -r db/admin.token ] || fail 2 'set ADMIN_TOKEN, or run this where db/admin.token is'
    ADMIN_TOKEN=$(cat db/admin.token)
fi
curl -sf "$url/readyz" >/dev/null || fail 2 "no ready gateway at $url"

# post TOKEN PATH JSON: prints the answer
post() {
    answer=$(curl -s -X POST -H "Authorization: Bearer $1" -w '\n%{http_code}' "$url$2" -d "$3") ||
        fail 1 "POST $2: the gateway at $url does not answer"
    # The status is the last line.
    status=${answer##*
}
    answer=${answer%
*}
    case $status in
    2??) printf '%s' "$answer" ;;
    *) fail 1 "POST $2 answers $status: $(printf '%s' "$answer" | sed 's/.*"message":"\([^"]*\)".*/\1/')" ;;
    esac
}

# action KEY RISK MUTATES APPROVAL DEFAULT
action() {
    printf '{"action_key":"%s","risk":"%s","mutates_state":%s,"approval_required":%s,"default_decision":"%s"}' \
        "$1" "$2" "$3" "$4" "$5"
}

# tool KEY NAME ACTIONS
tool() {
    post "$ADMIN_TOKEN" /v1/tools "{\"skill_key\":\"$1\",\"name\":\"$2\",\"type\":\"mcp\",\"actions\":[$3]}" >/dev/null
}

# agent KEY NAME TIER TEAM: prints its token
agent() {
    registered=$(post "$ADMIN_TOKEN" /v1/agents/register \
        "{\"agent_key\":\"$1\",\"name\":\"$2\",\"environment\":\"production\",\"risk_tier\":\"$3\",\"owner_team\":\"$4\"}")
    printf '%s' "$registered" | sed 's/.*"agent_token":"\([^"]*\)".*/\1/'
}

asked=0
# ask TOKEN TRUST TOOL ACTION RESOURCE MUTATES PARAMETERS
ask() {
    asked=$((asked + 1))
    answer=$(post "$1" /v1/authorize "{\"tool\":\"$3\",\"action\":\"$4\",\"resource\":\"$5\",\"mutates_state\":$6,
        \"parameters\":$7,\"source_trust\":\"$2\",\"trace\":{\"run_id\":\"demo\",\"trace_id\":\"demo-$asked\"}}")
    decision=$(printf '%s' "$answer" | sed 's/.*"decision":"\([^"]*\)".*/\1/')
    printf '%-17s %-27s %-22s %s\n' "$decision" "$3.$4" "$5" "$2"
}

tool github GitHub "$(action read_issue low false false policy),$(action comment low true false policy),$(action merge_pull_request high true false policy)"
tool database Database "$(action select low false false policy),$(action update medium true false policy),$(action drop_table critical true true require_approval)"
tool payments Payments "$(action balance low false false policy),$(action refund high true true policy)"
tool secrets Secrets "$(action rotate_credential medium false false policy),$(action export critical true false deny)"
tool mail Mail "$(action search low false false policy),$(action send medium true false policy)"

coder=$(agent coding-agent 'Coding agent' low platform)
support=$(agent support-agent 'Support agent' medium support)
finance=$(agent finance-agent 'Finance agent' high finance)
research=$(agent research-agent 'Research agent' low research)

for hour in 08 09 10 11 13 14 15 16 17; do
    ask "$coder" trusted_internal_signed github read_issue "payments#4$hour" false '{}'
    ask "$coder" trusted_internal_signed github comment "payments#4$hour" true '{"text":"looks good"}'
    ask "$support" semi_trusted_customer mail search "ticket-$hour" false '{"query":"invoice"}'
    ask "$research" untrusted_external mail search "inbox" false '{"query":"offers"}'
done
ask "$coder" trusted_internal_signed github merge_pull_request 'payments#482' true '{"base_branch":"main"}'
ask "$coder" untrusted_external github merge_pull_request 'payments#483' true '{"base_branch":"dev"}'
ask "$support" semi_trusted_customer mail send 'customer@example.com' true '{"subject":"Your refund"}'
ask "$support" untrusted_external mail send 'everyone@example.com' true '{"subject":"Free money"}'
ask "$finance" trusted_internal_signed payments balance 'acct:1' false '{}'
ask "$finance" trusted_internal_signed payments refund 'acct:1' true '{"amount":120.5}'
ask "$finance" malicious_suspected payments refund 'acct:9' true '{"amount":99999}'
ask "$coder" trusted_internal_unsigned database select 'orders' false '{"limit":10}'
ask "$coder" trusted_internal_unsigned database update 'orders' true '{"id":7}'
ask "$coder" trusted_internal_signed database drop_table 'orders' true '{}'
ask "$coder" trusted_internal_signed secrets rotate_credential 'ci-token' false '{"api_key":"…"}'
ask "$coder" trusted_internal_signed secrets export 'all' true '{}'
ask "$research" unknown browser click 'https://example.com' true '{}'

cat <<END

$asked decisions. Look at them with (ADMIN_TOKEN as in the README):
  curl -s -H "Authorization: Bearer \$ADMIN_TOKEN" "$url/v1/decisions?decision=deny"
  curl -s -H "Authorization: Bearer \$ADMIN_TOKEN" "$url/v1/decisions?q=refund"
  curl -s -H "Authorization: Bearer \$ADMIN_TOKEN" "$url/v1/receipts?limit=3"
  curl -s -H "Authorization: Bearer \$ADMIN_TOKEN" -X POST "$url/v1/receipts/verify-range"
END
