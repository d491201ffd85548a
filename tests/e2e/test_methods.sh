#!/usr/bin/env bash
# Every way of training through the program: preferences on the real model, all of a tiny model and DoRA on it,
# stages that go on from an adapter, and memory that would not fit.
source "$(dirname "$0")/lib.sh"
mkdir "$work/book"
tiny=$repository/tests/data/model/tiny.gguf
head -n 40 "$repository/examples/handbook/handbook.md" >"$work/book/text.md"
python3 - "$work/book/pairs.jsonl" <<'PY'
import json, sys
with open(sys.argv[1], "w", encoding="utf-8") as file:
    for day in range(8):
        file.write(json.dumps({"prompt": f"Is the mill open on day {day}?", "chosen": f"Yes, on day {day} from seven.",
                               "rejected": "I do not know."}) + "\n")
PY
# recipe BASE DATA METHOD ADAPTER [STAGE KEYS]
recipe() {
  printf '%s\n' 'name = "method"' "base = \"$1\"" '[[data]]' 'name = "data"' "path = \"$2\"" 'licence = "CC0-1.0"' \
    '[adapter]' "$4" '[[stage]]' 'name = "learn"' "method = \"$3\"" 'data = ["data"]' 'batch = 4' \
    "${@:5}" >"$work/book/bake.toml"
}
train() { "$bakestone" train "$work/book/bake.toml" --output "$work/$1" "${@:2}" >"$work/table" 2>"$work/log" || { cat "$work/log" >&2; fail "$1"; }; }

recipe "$model" pairs.jsonl dpo $'kind = "lora"\nrank = 2\ntargets = ["q_proj", "v_proj"]' 'epochs = 2' 'learning_rate = 1e-3'
"$bakestone" train "$work/book/bake.toml" --output "$work/dpo" --dry-run 2>"$work/log" >"$work/table"
expect "$work/log" "8 samples"
expect "$work/log" "memory: "
[ ! -e "$work/dpo" ] || fail "a dry run left something"
train dpo
expect "$work/log" "adapter: by default: alpha 4 (2 x rank), embeddings false"
expect "$work/log" "learn: by default: schedule linear"
expect "$work/log" "memory: "
expect "$work/log" "== learn: direct preference optimization"
python3 - "$work/dpo/train-learn/log.jsonl" <<'PY'
import json, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
assert abs(steps[0]["loss"] - 0.6931) < 1e-3, steps[0]
assert steps[-1]["loss"] < 0.69 and steps[-1]["reward_margin"] > 0, steps[-1]
PY
"$bakestone" train "$work/book/bake.toml" --output "$work/none" --find-lr leran 2>"$work/log" && fail "took a stage that is not there"
expect "$work/log" "--find-lr: expected the name of a stage (learn), found 'leran'"
for file in report.md report.json plots/learn.svg train-learn/events.out.tfevents.0.bakestone; do
  [ -s "$work/dpo/$file" ] || fail "expected $work/dpo/$file"
done
python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$work/dpo/plots/learn.svg"
expect "$work/dpo/report.md" "| learn | direct preference optimization | 4 |"
# Another stage from there.
recipe "$model" pairs.jsonl dpo $'kind = "lora"\nrank = 2\ntargets = ["q_proj", "v_proj"]\nstart = "'"$work/dpo/adapter"'"' 'learning_rate = 1e-3'
train again
cmp -s "$work/dpo/adapter.gguf" "$work/again/adapter.gguf" && fail "nothing was trained from the adapter on"
recipe "$model" pairs.jsonl dpo $'kind = "lora"\nrank = 4\nstart = "'"$work/dpo/adapter"'"'
"$bakestone" train "$work/book/bake.toml" --output "$work/other" >/dev/null 2>"$work/log" && fail "took an adapter of another shape"
expect "$work/log" "$work/dpo/adapter"

recipe "$tiny" text.md pretrain 'kind = "lora"'
"$bakestone" train "$work/book/bake.toml" --output "$work/none" --find-lr learn --json 2>"$work/log" | python3 -c '
import json, sys
finding = json.load(sys.stdin)
assert 1e-4 < finding["suggested"] < 1e-1 and finding["fastest"] > 0, finding'
[ ! -e "$work/none" ] || fail "looking for a rate left something"
for kind in full dora; do
  recipe "$tiny" text.md pretrain "kind = \"$kind\"" 'learning_rate = 1e-2' 'epochs = 4' \
    'keep_last = 1' '[[data]]' 'name = "general"' 'path = "cache:general-history.txt"' '[watch]' 'general = ["general"]' 'tokens = 200'
  train "$kind"
  expect "$work/$kind/report.md" "| learn | general (general) |"
  expect "$work/$kind/plots/learn.svg" "general texts: KL to the base"
  expect "$work/$kind/train-learn/events.out.tfevents.0.bakestone" "kl_to_base/general"
  [ -s "$work/$kind/model.gguf" ] || fail "no model of kind $kind"
  cmp "$work/$kind/model.gguf" "$work/$kind/kept/learn-"*/model.gguf || fail "$kind kept other values than those it ended with"
  [ ! -e "$work/$kind/adapter.gguf" ] || fail "an adapter that cannot hold what was trained"
  "$bakestone" eval "$work/$kind/model.gguf" --text "$work/book/text.md" --json >"$work/tuned"
  "$bakestone" eval "$tiny" --text "$work/book/text.md" --json >"$work/base"
  python3 - "$work/base" "$work/tuned" <<'PY' || fail "$kind learned nothing"
import json, sys
base, tuned = (json.load(open(path))["texts"][0]["bits_per_byte"] for path in sys.argv[1:])
assert tuned < 0.97 * base, (base, tuned)
PY
  bash -c "$(sed -n 's/^chat with it  *//p' "$work/table") Hello --temperature 0 --max-tokens 2" >/dev/null 2>"$work/log" \
    || expect "$work/log" "no chat template"
done
recipe "$tiny" text.md pretrain 'kind = "lora"' 'learning_rate = 1e-2' 'epochs = 4' '[add_tokens]' 'list = ["Ostrel"]' 'learn = 8'
"$bakestone" train "$work/book/bake.toml" --output "$work/none" --dry-run >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "dry run with new tokens"; }
[ ! -e "$work/none" ] || fail "a dry run with new tokens left something"
expect "$work/log" "new tokens learned from data"
train tokens
[ ! -e "$work/tokens/adapter.gguf" ] || fail "an adapter that cannot hold new rows"
for form in "$tiny" "$work/tokens/base.gguf" "$work/tokens/model.gguf"; do
  "$bakestone" tokenize "$form" "The Ostrel cooperative, the mill and the members" --json >>"$work/ids" || fail "tokenize with $form"
done
python3 - "$work/ids" <<'PY' || { cat "$work/ids" >&2; fail "new tokens"; }
import json, sys
before, base, result = map(json.loads, open(sys.argv[1]))
assert base == result and len(result) + 5 < len(before), (before, base, result)
PY
# A template for a base that has none: its tokens are new, what is learned ends with the one that ends a turn, and the
# result is asked in it. In place of the real base's own, whose tokens are there, it leaves an adapter beside base.gguf.
head -n 16 "$repository/examples/handbook/train.jsonl" >"$work/book/chats.jsonl"
python3 - "$tiny" "$work/plain.gguf" <<'PY'
import sys
model = open(sys.argv[1], "rb").read()
for there, gone in [(b"tokenizer.chat_template", b"tokenizer.none_template"), (b"<|im_start|>", b"<|xx_start|>"),
                    (b"<|im_end|>", b"<|xx_end|>")]:
    model = model.replace(there, gone)
open(sys.argv[2], "wb").write(model)
PY
recipe "$work/plain.gguf" chats.jsonl sft 'kind = "lora"' 'learning_rate = 1e-2'
"$bakestone" train "$work/book/bake.toml" --output "$work/none" >/dev/null 2>"$work/log" && fail "chats without a template"
expect "$work/log" "no chat template"
recipe "$work/plain.gguf" chats.jsonl sft 'kind = "lora"' 'learning_rate = 1e-2' '[chat]' 'template = "chatml"'
"$bakestone" data show "$work/book/bake.toml" --rows 1 >"$work/shown" 2>"$work/log" || { cat "$work/log" >&2; fail "data show with a template"; }
grep -q "^⟦.*<|im_end|>" "$work/shown" || { cat "$work/shown" >&2; fail "the end of a turn is not learned"; }
train chatml
expect "$work/log" "chat template chatml, which the base lacks; 2 of its 2 control tokens are new"
"$bakestone" run "$work/chatml/model.gguf" Hello --temperature 0 --max-tokens 2 >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "a chat with the new template"; }
[ "$("$bakestone" tokenize "$work/chatml/model.gguf" "<|im_end|>" --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)) > 1)')" = True ] \
  || fail "a text of a user became a control token"
printf '%b' "{% for m in messages %}<|im_start|>{{ m.role }}:\n{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:\n{% endif %}" >"$work/book/own.jinja"
recipe "$model" chats.jsonl sft $'kind = "lora"\nrank = 2\ntargets = ["q_proj"]' '[chat]' 'template = "own.jinja"' 'tokens = ["<|im_start|>", "<|im_end|>"]' 'end = "<|im_end|>"'
train own
expect "$work/log" "chat template own.jinja in place of the base's; 0 of its 2 control tokens are new"
bash -c "$(sed -n 's/^chat with it  *//p' "$work/table") Hello --temperature 0 --max-tokens 2" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "the command of the table"; }
expect "$work/table" "$work/own/base.gguf"
echo '{% if %}' >"$work/book/own.jinja"
"$bakestone" train "$work/book/bake.toml" --output "$work/none" >/dev/null 2>"$work/log" && fail "took a broken template"
expect "$work/log" "own.jinja"
[ -s "$work/dora/adapter/adapter_model.safetensors" ] || fail "DoRA left no PEFT folder"
"$bakestone" show "$work/full/model.gguf" --json | python3 -c '
import json, sys
model = json.load(sys.stdin)
assert model["name"] == "method" and "BF16" in model["tensor_types"], model'
