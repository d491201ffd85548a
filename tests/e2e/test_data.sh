#!/usr/bin/env bash
# Data as people have it: any format trains as JSONL does, what is not used is said and kept, and both looks
# at it (data check, data show) say what a person needs.
source "$(dirname "$0")/lib.sh"
mkdir "$work/book"
head -n 12 "$repository/examples/handbook/train.jsonl" >"$work/book/chats.jsonl"
python3 - "$work/book" <<'PY'
import csv, json, pathlib, sys
book = pathlib.Path(sys.argv[1])
rows = [json.loads(line) for line in open(book / "chats.jsonl", encoding="utf-8")]
turns = [[(m["role"], m["content"]) for m in row["messages"]] for row in rows]
assert all(len(t) == 2 for t in turns), "the sample's first chats are a question and an answer"
with open(book / "chats.csv", "w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["prompt", "completion"])
    table.writerows([[question, answer] for (_, question), (_, answer) in turns])
names = {"user": "human", "assistant": "gpt"}
json.dump([{"conversations": [{"from": names[r], "value": c} for r, c in t]} for t in turns],
          open(book / "chats.json", "w", encoding="utf-8"))
PY
gzip -k "$work/book/chats.jsonl"

recipe() {  # recipe FILE [KEYS]: trains on it
  printf '%s\n' 'name = "formats"' "base = \"$model\"" '[[data]]' 'name = "chats"' "path = \"$1\"" \
    'licence = "CC0-1.0"' 'source = "the handbook of this repository"' "${@:2}" '[lora]' 'rank = 2' 'targets = ["q_proj"]' '[[stage]]' 'name = "learn"' \
    'method = "sft"' 'data = ["chats"]' 'batch = 6' >"$work/book/bake.toml"
}
for file in chats.jsonl chats.jsonl.gz chats.csv chats.json; do
  recipe "$file"
  "$bakestone" train "$work/book/bake.toml" --output "$work/$file" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "$file"; }
  expect "$work/log" "(detected): 12 rows, 12 learned"
  cmp "$work/chats.jsonl/adapter.gguf" "$work/$file/adapter.gguf" || fail "$file trains another adapter than JSONL"
done

# What only looks leaves all as it is.
"$bakestone" train "$work/book/bake.toml" --output "$work/chats.json" --from learn --dry-run 2>"$work/log" || fail "dry run"
expect "$work/log" "adapter: by default: kind lora, alpha 4 (2 x rank)"
[ -e "$work/chats.json/train-learn/result.bin" ] || fail "a dry run removed what was trained"
python3 - "$work/chats.jsonl/data.json" <<'PY'
import json, sys
source = json.load(open(sys.argv[1]))["sources"][0]
assert source["source"] == "the handbook of this repository" and len(source["sha256"]) == 64, source
PY

# A row that cannot be read stops the run, unless some are allowed; then it stands in a file.
{ cat "$work/book/chats.jsonl"; echo '{"messages": [}'; } >"$work/book/broken.jsonl"
recipe broken.jsonl
"$bakestone" train "$work/book/bake.toml" --output "$work/broken" >/dev/null 2>"$work/log" && fail "trained on a broken file"
expect "$work/log" "broken.jsonl, line 13: expected one JSON object"
recipe broken.jsonl 'max_rejected = 0.2'
"$bakestone" train "$work/book/bake.toml" --output "$work/broken" >/dev/null 2>"$work/log"
expect "$work/log" "1 of 13 rows cannot be used (line 13"
expect "$work/broken/rejected/learn-chats.jsonl" '"line":13'
recipe chats.jsonl 'formt = "messages"'
"$bakestone" train "$work/book/bake.toml" --output "$work/broken" >/dev/null 2>"$work/log" && fail "took a misspelt key"
expect "$work/log" "unknown key 'formt' (did you mean 'format'?)"

recipe broken.jsonl
"$bakestone" data check "$work/book/bake.toml" >"$work/report"
expect "$work/report" "messages (12)"
expect "$work/report" "line 13: expected one JSON object"
echo 'Write to anna@example.org or call +44 20 7946 0958.' >"$work/book/letter.txt"
"$bakestone" data check "$work/book/letter.txt" --json | python3 -c '
import json, sys
report = json.load(sys.stdin)["letter.txt"]
assert report["rows"] == 1 and report["personal"] == {"e-mail": 1, "phone": 1}, report'
"$bakestone" data show "$work/book/chats.csv" --model "$model" --rows 1 >"$work/shown" 2>/dev/null
expect "$work/shown" "<|im_start|>user"
grep -q "^⟦.*<|im_end|>$" "$work/shown" || { cat "$work/shown" >&2; fail "what is learned is not marked"; }
head -n 12 "$repository/examples/handbook/handbook.md" >"$work/book/text.md"
"$bakestone" data make "$work/book/text.md" --model "$model" --per-passage 1 --output "$work/pairs.jsonl" --json >"$work/made" 2>/dev/null
python3 - "$work/made" "$work/pairs.jsonl" <<'PY'
import json, sys
counts = json.load(open(sys.argv[1]))
kept, rejected = ([json.loads(line) for line in open(path)] for path in (sys.argv[2], sys.argv[2] + ".rejected.jsonl"))
assert len(kept) == counts["kept"] and len(rejected) == counts["rejected"] and kept + rejected, counts
assert all(row["reason"] for row in rejected) and all(row["source"]["line"] >= 1 for row in kept + rejected)
PY
"$bakestone" data show "$work/book/chats.csv" 2>"$work/log" && fail "showed a file without a template"
expect "$work/log" "--model"
