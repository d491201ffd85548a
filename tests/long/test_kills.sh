#!/usr/bin/env bash
# KILLS (default 100) kills at random moments while training, each followed by a resumed run; at the end
# the adapter equals an uninterrupted run's, byte by byte.
source "$(dirname "$0")/../e2e/lib.sh"
EPOCHS=4 short_recipe "$work/book"
"$bakestone" train "$work/book/bake.toml" --output "$work/whole" >/dev/null 2>&1
RANDOM=1
hits=0
finished=0
for kill in $(seq "${KILLS:-100}"); do
  "$bakestone" train "$work/book/bake.toml" --output "$work/killed" --checkpoint-seconds 0 >/dev/null 2>&1 &
  process=$!
  sleep "$((RANDOM % 3)).$((RANDOM % 10))"
  if kill -9 "$process" 2>/dev/null; then hits=$((hits + 1)); fi
  wait "$process" 2>/dev/null || true
  # Once it is finished, begin again: there is nothing left to kill.
  if [ -e "$work/killed/adapter.gguf" ]; then
    cmp "$work/whole/adapter.gguf" "$work/killed/adapter.gguf" || fail "another adapter after kill $kill"
    rm -rf "$work/killed"
    finished=$((finished + 1))
  fi
done
"$bakestone" train "$work/book/bake.toml" --output "$work/killed" >/dev/null 2>&1
cmp "$work/whole/adapter.gguf" "$work/killed/adapter.gguf" || fail "another adapter at the end"
[ $((2 * hits)) -ge "${KILLS:-100}" ] || fail "only $hits of ${KILLS:-100} kills found a running process"
echo "$hits kills, $((finished + 1)) adapters, all the same"
