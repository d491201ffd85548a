#!/usr/bin/env bash
# kill -9 while training, again and again: the finished adapter equals an uninterrupted run's, byte by byte.
source "$(dirname "$0")/lib.sh"
EPOCHS=2 short_recipe "$work/book"

"$bakestone" train "$work/book/bake.toml" --output "$work/whole" >/dev/null 2>"$work/log"
kills=0
for seconds in 2.1 2.9 3.7 4.3 5.1; do
  "$bakestone" train "$work/book/bake.toml" --output "$work/killed" --checkpoint-seconds 0 >/dev/null 2>>"$work/log" &
  process=$!
  sleep "$seconds"
  if kill -9 "$process" 2>/dev/null; then kills=$((kills + 1)); fi
  wait "$process" 2>/dev/null || true
done
"$bakestone" train "$work/book/bake.toml" --output "$work/killed" --threads 1 >/dev/null 2>>"$work/log"
[ "$kills" -ge 1 ] || fail "no run was killed"
cmp "$work/whole/adapter.gguf" "$work/killed/adapter.gguf" || fail "a killed run ended in another adapter"
cmp "$work/whole/adapter/adapter_model.safetensors" "$work/killed/adapter/adapter_model.safetensors"

# Ctrl-C stops cleanly, says how to go on, and what is on disk goes on.
"$bakestone" train "$work/book/bake.toml" --output "$work/stopped" >/dev/null 2>"$work/log" &
process=$!
for _ in $(seq 600); do [ -s "$work/stopped/train-read/log.jsonl" ] && break; sleep 0.05; done
kill -INT "$process" 2>/dev/null || true
wait "$process" && fail "an interrupted run reported success" || [ $? -eq 1 ] || fail "expected exit 1"
expect "$work/log" "run again to go on"

# So does SIGTERM.
"$bakestone" train "$work/book/bake.toml" --output "$work/full" --checkpoint-steps 1 >/dev/null 2>"$work/log" &
process=$!
for _ in $(seq 600); do [ -s "$work/full/train-learn/checkpoint.bin" ] && break; sleep 0.1; done
kill -TERM "$process" 2>/dev/null || true
wait "$process" && fail "a run that was told to end reported success"
expect "$work/log" "run again to go on"

# A disk that is full (here: files may not grow beyond 64 kB) stops it with the file and the reason, and costs nothing.
[ -s "$work/full/train-learn/checkpoint.bin" ] || fail "no checkpoint after a step"
cp "$work/full/train-learn/checkpoint.bin" "$work/good.bin"
(trap '' XFSZ; ulimit -f 64; exec "$bakestone" train "$work/book/bake.toml" --output "$work/full" --checkpoint-steps 1) \
  >/dev/null 2>"$work/log" && fail "wrote to a full disk"
expect "$work/log" "checkpoint.bin"
cmp "$work/good.bin" "$work/full/train-learn/checkpoint.bin" || fail "a full disk damaged the checkpoint"
[ -z "$(find "$work/full" -name '*.tmp*' -size +0)" ] || fail "half a checkpoint is left"
"$bakestone" train "$work/book/bake.toml" --output "$work/full" >/dev/null 2>>"$work/log"
cmp "$work/whole/adapter.gguf" "$work/full/adapter.gguf" || fail "a full disk changed the adapter"
