#!/usr/bin/env bash
# An adapter trained here, as LoRA in llama.cpp: it answers held-out questions as bakestone does, and without
# the adapter it does not. Needs node 20 or newer and npm, which installs a prebuilt llama.cpp once into the
# home folder. Trains on the sample handbook (5 minutes on 2 cores) unless given the output of a bake of it.
source "$(dirname "$0")/../e2e/lib.sh"
if ! command -v npm >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -lt 20 ]; then
  echo "skipped: node 20 or newer and npm are not installed" >&2
  exit 77
fi
version=3.22.1
case $(uname -m) in x86_64) platform=linux-x64 ;; aarch64) platform=linux-arm64 ;; esac
folder=$BAKESTONE_HOME/node-llama-cpp-$version
if [ ! -e "$folder/installed" ]; then
  npm install --prefix "$folder" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
    "node-llama-cpp@$version" "@node-llama-cpp/${platform:?no prebuilt llama.cpp for $(uname -m)}@$version"
  touch "$folder/installed"
fi

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
cd "$folder"
node "$repository/tools/check_llamacpp_adapter.mjs" "$model" "$out/adapter.gguf" \
  "$work/questions/heldout.jsonl" "$work/evaluation.json" "${QUESTIONS:-8}"
