#!/usr/bin/env bash
# An adapter trained here, as LoRA in llama.cpp: it answers held-out questions as bakestone does, and without
# the adapter it does not. Needs node 20 or newer and npm, which installs a prebuilt llama.cpp once into the
# home folder. Trains on the sample handbook (5 minutes on 2 cores) unless given the output of a bake of it.
source "$(dirname "$0")/../e2e/lib.sh"
source "$(dirname "$0")/../e2e/llama_cpp.sh"

book=$repository/examples/handbook
out=${2:-}
if [ -z "$out" ]; then
  out=$work/out
  "$bakestone" train "$book/bake.toml" --output "$out" >/dev/null 2>"$work/log" \
    || { tail -n 5 "$work/log" >&2; fail "training"; }
fi
out=$(realpath "$out")
mkdir "$work/questions"
cp "$book"/{facts.jsonl,data.toml} "$work/questions/"
awk 'NR % 4 == 1' "$book/heldout.jsonl" >"$work/questions/heldout.jsonl"
"$bakestone" eval "$model" --adapter "$out/adapter.gguf" --questions "$work/questions/heldout.jsonl" \
  --max-tokens 48 --json >"$work/evaluation.json" 2>/dev/null
cd "$llama_cpp"
node "$repository/tools/check_llamacpp_adapter.mjs" "$model" "$out/adapter.gguf" \
  "$work/questions/heldout.jsonl" "$work/evaluation.json" "${QUESTIONS:-8}"
