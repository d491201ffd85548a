#!/usr/bin/env bash
# bench --serve on a real server: the same seed is the same load, everything is answered, shared prefixes are found
# in the cache; a wrong address, key or mix ends in words.
source "$(dirname "$0")/lib.sh"
key=load-secret-0123456789
echo "$key name=load" >"$work/keys"
"$bakestone" serve "$model" --port 0 --api-key-file "$work/keys" >"$work/url" 2>"$work/serve.log" &
server=$!
for _ in $(seq 300); do [ -s "$work/url" ] && break; sleep 0.1; done
url=$(cat "$work/url")
load() { "$bakestone" bench --serve "$url" --api-key-file "$work/keys" --rate 10 --seconds "${seconds:-0.7}" --seed 3 "$@"; }

load --prompt-tokens 8,16=3 --answer-tokens 4,8 --prefixes 1 --prefix-tokens 64 --json >"$work/first.json" 2>"$work/log" || { cat "$work/log" >&2; fail "a load"; }
load --prompt-tokens 8,16=3 --answer-tokens 4,8 --prefixes 1 --prefix-tokens 64 --json >"$work/second.json" 2>"$work/log"
python3 - "$work/first.json" "$work/second.json" <<'PY' || fail "the figures of a load"
import json, sys
first, second = (json.load(open(path)) for path in sys.argv[1:])
assert first["requests"] > 4 and first["complete"] == first["requests"] and first["failed"] == 0, first
assert first["completion_tokens"] >= 4 * first["requests"], "answers have the length that was asked for"
for name in ("prompt_tokens", "completion_tokens", "requests"):
    assert first[name] == second[name], (name, first[name], second[name])
assert second["cached_tokens"] >= 64 * (second["requests"] - 1), "a shared prefix is found"
times = first["first_token_seconds"]
assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"] and times["count"] == first["requests"]
assert first["cpu_share"] < 0.05, first["cpu_share"]
PY
seconds=0.2 load --answer-tokens 2 --plain >"$work/table" 2>/dev/null
expect "$work/table" "to the first token"
expect "$work/table" "of a core"
load --streams 3 --requests 7 --answer-tokens 4 --json >"$work/closed.json" 2>"$work/log" || { cat "$work/log" >&2; fail "a closed loop"; }
python3 - "$work/closed.json" <<'PY' || fail "the figures of a closed loop"
import json, sys
load = json.load(open(sys.argv[1]))
assert load["streams"] == 3 and load["complete"] == 7 and load["completion_tokens"] == 28 and "rate" not in load, load
PY
load --requests 3 >/dev/null 2>"$work/log" && fail "--requests without --streams"
expect "$work/log" "goes with --streams"
seconds=0.2 load --models nobody >"$work/table" 2>"$work/log" && fail "a model that is not there"
expect "$work/table" "HTTP 404"
"$bakestone" bench --serve "$url" >/dev/null 2>"$work/log" && fail "without a key"
expect "$work/log" "HTTP 401"
load --prompt-tokens 8,x >/dev/null 2>"$work/log" && fail "a wrong mix"
expect "$work/log" "--prompt-tokens"
"$bakestone" bench --serve 127.0.0.1 >/dev/null 2>"$work/log" && fail "an address without http"
expect "$work/log" "expected an address"
kill "$server"
wait "$server" || fail "the server's end"
