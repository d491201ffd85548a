#!/usr/bin/env bash
# usage: fuzz/run.sh SECONDS [NAME...]
# Runs each fuzz target that is built (or the named ones) for that many seconds, from its committed
# seeds, in a scratch folder. An input may take 1 second and one allocation 64 MiB; the limit on the
# whole process is wider because the sanitizer's own tables count. A finding is an exit code of 1 and a
# file in build/fuzz/findings/, which `build/fuzz/fuzz/NAME_fuzz FILE` repeats.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz/run.sh SECONDS [NAME...]}
shift
bin=build/fuzz/fuzz
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for target in "$bin"/*_fuzz; do names+=("$(basename "${target%_fuzz}")"); done
fi
mkdir -p build/fuzz/findings
failed=0
for name in "${names[@]}"; do
  [ -x "$bin/${name}_fuzz" ] || { echo "$bin/${name}_fuzz is not built (target fuzzers)" >&2; exit 2; }
  scratch=$(mktemp -d)
  options=(-max_total_time="$seconds" -max_len=16384 -timeout=1 -malloc_limit_mb=64
           -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$name-")
  [ -f "fuzz/$name.dict" ] && options+=(-dict="fuzz/$name.dict")
  if "$bin/${name}_fuzz" "${options[@]}" "$scratch" "fuzz/corpus/$name" >"$scratch.log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch.log")
    echo "fuzz $name: $runs executions in $seconds s, no finding"
  else
    echo "fuzz $name: FINDING (see build/fuzz/findings/)"
    tail -40 "$scratch.log"
    failed=1
  fi
  rm -rf "$scratch" "$scratch.log"
done
exit $failed
