#!/usr/bin/env bash
# The server under everything at once for SOAK_SECONDS (default 600): tests/long/soak.py says what is asked of
# it. Trains its own small adapter first.
source "$(dirname "$0")/../e2e/lib.sh"
short_recipe "$work/book"
"$bakestone" train "$work/book/bake.toml" --output "$work/out" >/dev/null 2>"$work/log" \
  || { tail -n 5 "$work/log" >&2; fail "training"; }
python3 "$repository/tests/long/soak.py" "$bakestone" "$model" "$work/out/adapter.gguf" \
  --seconds "${SOAK_SECONDS:-600}" --seed "${SOAK_SEED:-1}"
