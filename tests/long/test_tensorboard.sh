#!/usr/bin/env bash
# TensorBoard's own reader (PyPI's tensorboard, fetched once into the home folder) finds in the file of events what
# log.jsonl says, also after a run was stopped and went on.
source "$(dirname "$0")/../e2e/lib.sh"
reader="tensorboard==2.21.0"
venv=$BAKESTONE_HOME/venv-tensorboard
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$reader" ]; then
  rm -rf "$venv" && python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "$reader" 'setuptools<81'
  echo "$reader" >"$venv/installed"
fi

head -n 24 "$repository/examples/handbook/train.jsonl" >"$work/chats.jsonl"
head -c 3000 "$BAKESTONE_HOME/data/general-history.txt" >"$work/general.txt"
cat >"$work/bake.toml" <<TOML
name = "events"
base = "$model"
[[data]]
name = "chats"
path = "chats.jsonl"
licence = "CC0-1.0"
[[data]]
name = "general"
path = "general.txt"
[lora]
rank = 2
targets = ["q_proj"]
[watch]
general = ["general"]
tokens = 128
[[stage]]
name = "learn"
method = "sft"
data = ["chats"]
batch = 2
epochs = 10
TOML
"$bakestone" train "$work/bake.toml" --output "$work/out" >/dev/null 2>"$work/log" &
run=$!
for _ in $(seq 600); do [ "$(cat "$work/out/train-learn/log.jsonl" 2>/dev/null | wc -l)" -ge 4 ] && break; sleep 0.1; done
kill -INT "$run" && wait "$run" && fail "was not stopped in the middle"
expect "$work/log" "run again to go on"
"$bakestone" train "$work/bake.toml" --output "$work/out" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "going on"; }

"$venv/bin/python" - "$work/out/train-learn" <<'PY'
import json, math, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
folder = sys.argv[1]
events = EventAccumulator(folder)
events.Reload()
logged = {}
for line in open(folder + "/log.jsonl"):
    entry = json.loads(line)
    for tag, value in entry.items():
        if tag not in ("step", "seconds"):
            logged.setdefault(tag, {})[entry["step"]] = value
found = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
assert set(found) == set(logged), (sorted(found), sorted(logged))
assert {"loss", "learning_rate"} <= set(found) and any(tag.startswith("kl_to_base/") for tag in found), sorted(found)
for tag, values in logged.items():
    assert set(found[tag]) == set(values), (tag, sorted(found[tag]), sorted(values))
    for step, value in values.items():
        assert math.isclose(found[tag][step], value, rel_tol=1e-6, abs_tol=1e-30), (tag, step, found[tag][step], value)
print(f"{sum(map(len, found.values()))} scalars of {len(found)} tags, as in log.jsonl")
PY
