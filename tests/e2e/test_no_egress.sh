#!/usr/bin/env bash
# bake, run and serve in a network namespace whose only interface is loopback; and every address that
# they connect to, bind or send to is on loopback or local to the machine.
source "$(dirname "$0")/lib.sh"
short_recipe "$work/book"

isolated() {
  if [ "$(id -u)" -eq 0 ]; then unshare -n bash -c "ip link set lo up; $1"; else
    unshare -rn bash -c "ip link set lo up; $1"
  fi
}
trace="strace -f -qq -e trace=connect,bind,sendto,sendmsg -o"

isolated "$trace $work/trace-bake '$bakestone' bake '$work/book/bake.toml' --output '$work/out' >'$work/table' 2>'$work/log'" \
  || { tail -n 20 "$work/log" >&2; fail "bake needs a network"; }
expect "$work/table" "asked through the server"
isolated "$trace $work/trace-run '$bakestone' run '$model' 'Say hello.' --max-tokens 4 >'$work/answer'"
[ -s "$work/answer" ] || fail "run gave no answer"
cat >"$work/serve.sh" <<SH
$trace $work/trace-serve '$bakestone' serve '$model' --port 18417 >'$work/serve.log' 2>&1 &
for i in \$(seq 100); do
  curl -sf --noproxy '*' http://127.0.0.1:18417/health >/dev/null && break
  sleep 0.2
done
curl -sf --noproxy '*' http://127.0.0.1:18417/v1/chat/completions -H 'Content-Type: application/json' \
  -d '{"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}' >'$work/reply'
pkill -TERM -f -- '--port 18417' || true
wait
SH
isolated "bash $work/serve.sh"
expect "$work/reply" '"finish_reason"'

python3 - "$work"/trace-* <<'PY' || fail "an address beyond loopback was used"
import re, sys
calls = 0
for path in sys.argv[1:]:
    for line in open(path, errors="replace"):
        for address in re.findall(r'inet_addr\("([^"]+)"\)', line) + re.findall(r'inet_pton\(AF_INET6, "([^"]+)"', line):
            calls += 1
            assert address.startswith("127.") or address == "::1", (path, line)
assert calls > 0, "strace saw no network call: the test would prove nothing"
print(calls, "network calls, all on loopback")
PY
