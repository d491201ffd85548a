#!/usr/bin/env bash
# The gain is real: the recipe, unchanged, on both handbooks over three seeds. The medians must reach
# direct 60 %, situational 40 %, letters 80 %, unanswerable declined 60 %, and each general text's
# perplexity may rise by 5 % at most. About 35 minutes on 2 cores; SEEDS="1" for less.
set -euo pipefail
bakestone=$(realpath "${1:?usage: test_gain.sh BINARY [OUTPUT-FOLDER]}")
output=${2:-$(mktemp -d)}
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
for book in examples/handbook tests/handbook2; do
  for seed in ${SEEDS:-1 2 3}; do
    folder=$output/$(basename "$book")-$seed
    "$bakestone" bake "$repository/$book/bake.toml" --seed "$seed" --output "$folder" --json \
      >"$folder.json" 2>"$folder.log" || { tail -n 5 "$folder.log" >&2; exit 1; }
  done
  python3 - "$book" "$output/$(basename "$book")"-*.json <<'PY'
import json, statistics, sys
book, reports = sys.argv[1], [json.load(open(path)) for path in sys.argv[2:]]
targets = {"direct": 60, "situational": 40, "letter": 80, "unanswerable": 60}
failed = False
def share(side, kind):
    tally = side["kinds"][kind]
    return 100 * tally["right"] / tally["asked"]
print(f"{book}: median of {len(reports)} seeds (each)")
for kind, target in targets.items():
    before = statistics.median(share(r["before"], kind) for r in reports)
    each = [share(r["after"], kind) for r in reports]
    after = statistics.median(each)
    failed |= after < target
    print(f"  {kind:13} {before:3.0f} % -> {after:3.0f} %  {[round(x) for x in each]}  target {target} %"
          + ("" if after >= target else "  MISSED"))
for i, text in enumerate(reports[0]["before"]["texts"]):
    each = [100 * (r["after"]["texts"][i]["perplexity"] / r["before"]["texts"][i]["perplexity"] - 1)
            for r in reports]
    rise = statistics.median(each)
    missed = text["general"] and rise > 5
    failed |= missed
    print(f"  {text['name']:13} perplexity {text['perplexity']:.2f}  {rise:+.1f} %"
          f"  {[round(x, 1) for x in each]}" + ("  MISSED" if missed else ""))
print("  training", [f"{r['train_tokens'] / r['train_seconds']:.0f} tokens/s" for r in reports],
      [f"{r['seconds']:.0f} s" for r in reports], [f"{r['peak_bytes'] / 1e9:.2f} GB" for r in reports])
sys.exit(failed)
PY
done
