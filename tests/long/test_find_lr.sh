#!/usr/bin/env bash
# The rate that --find-lr suggests against a sweep of five, each trained for as long, judged by held-out loss on the real
# model: within 3 times the best one. About 10 minutes on 2 cores.
source "$(dirname "$0")/../e2e/lib.sh"
mkdir "$work/book"
head -n "${ROWS:-96}" "$repository/examples/handbook/train.jsonl" >"$work/book/train.jsonl"
# recipe RATE
recipe() {
  cat >"$work/book/bake.toml" <<TOML
name = "rates"
base = "$model"
[[data]]
name = "chats"
path = "train.jsonl"
licence = "CC0-1.0"
heldout = 0.2
[lora]
rank = 8
[[stage]]
name = "learn"
method = "sft"
data = ["chats"]
batch = 4
learning_rate = $1
TOML
}
recipe 1e-3
"$bakestone" train "$work/book/bake.toml" --output "$work/none" --find-lr learn --json >"$work/finding" 2>"$work/log" \
  || { cat "$work/log" >&2; fail "--find-lr"; }
for rate in 1e-4 3e-4 1e-3 3e-3 1e-2; do
  recipe $rate
  "$bakestone" train "$work/book/bake.toml" --output "$work/sweep/$rate" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "rate $rate"; }
done
python3 - "$work" <<'PY'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
suggested = json.load(open(work / "finding"))["suggested"]
losses = {}
for folder in (work / "sweep").iterdir():
    lines = [json.loads(line) for line in open(folder / "train-learn" / "log.jsonl")]
    losses[float(folder.name)] = [line["heldout_loss"] for line in lines if "heldout_loss" in line][-1]
for rate, loss in sorted(losses.items()):
    print(f"{rate:.0e}  held-out loss {loss:.4f}")
best = min(losses, key=losses.get)
print(f"best {best:.0e}, suggested {suggested:.1e}: {max(best / suggested, suggested / best):.1f} times apart, allowed 3")
sys.exit(not best / 3 <= suggested <= 3 * best)
PY
