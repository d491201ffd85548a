#!/usr/bin/env bash
# Schemathesis reads the OpenAPI document that the server serves and tries thousands of requests that fit it and that do
# not: no 5xx, only statuses, types and bodies that the document tells of, what does not fit is refused, other methods are a
# 405. Left out: that whatever fits is taken, as a type cannot say which messages a conversation may have.
source "$(dirname "$0")/../e2e/lib.sh"
wanted=schemathesis==4.32.5
venv=$BAKESTONE_HOME/venv-schemathesis
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "$wanted"
  echo "$wanted" >"$venv/installed"
fi
mkdir "$work/adapters"
"$bakestone" serve "$model" --port 0 --max-context 512 --default-max-tokens 8 --max-request-seconds 10 \
  --adapter-folder "$work/adapters" >"$work/url" 2>"$work/serve.log" &
server=$!
for _ in $(seq 300); do [ -s "$work/url" ] && break; sleep 0.1; done
cd "$work"
"$venv/bin/schemathesis" run "$(cat "$work/url")/openapi.json" --no-color --seed "${SEED:-1}" --continue-on-failure \
  --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-20}" --max-time "${SECONDS_AT_MOST:-600}" \
  --exclude-checks positive_data_acceptance || fail "requests that schemathesis made up"
kill "$server"
wait "$server" || fail "the server's end"
