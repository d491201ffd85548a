#!/usr/bin/env bash
# The whole road on the real model: bake, what it leaves, a second run, --from, and the verbs around it.
source "$(dirname "$0")/lib.sh"
short_recipe "$work/book"
out=$work/out

"$bakestone" bake "$work/book/bake.toml" --output "$out" >"$work/table" 2>"$work/log"
for words in "questions, direct" "letters filed" "unanswerable, declined" "general 'general', bits/byte" \
             "perplexity" "tokens/s" "peak memory" "energy" "sizes" "licence of the result" \
             "Apache-2.0" "asked through the server" "bakestone run" "bakestone serve" "bake your own"; do
  expect "$work/table" "$words"
done
for file in licence.json before.json after.json adapter/adapter_config.json \
            adapter/adapter_model.safetensors adapter.gguf served.json lineage.json; do
  [ -s "$out/$file" ] || fail "expected $out/$file"
done

expect "$out/adapter/README.md" 'license: "apache-2.0"'
grep -aq "general.license" "$out/adapter.gguf" || fail "adapter.gguf states no licence"

# The command that it ends with is exact.
bash -c "$(sed -n 's/^chat with it  *//p' "$work/table") Hello --temperature 0 --max-tokens 4" >"$work/said"
[ -s "$work/said" ] || fail "the command of the table gave no answer"

# A second run does nothing again; its report says so.
"$bakestone" bake "$work/book/bake.toml" --output "$out" --json >"$work/report" 2>"$work/log2"
python3 - "$work/report" <<'PY' || fail "the second run's report"
import json, sys
report = json.load(open(sys.argv[1]))
assert report["reused_stages"] == report["stages"] == 8, (report["reused_stages"], report["stages"])
assert report["before"]["texts"][0]["tokens"] > 100
assert report["licence"] == "Apache-2.0"
PY
refuse "$work/log2" "steps"

# --from repeats from a stage; the same seed gives the same bytes.
cp "$out/adapter.gguf" "$work/first.gguf"
"$bakestone" bake "$work/book/bake.toml" --output "$out" --from learn >/dev/null 2>"$work/log3"
expect "$work/log3" "read: done before"
expect "$work/log3" "== learn: supervised"
cmp "$out/adapter.gguf" "$work/first.gguf" || fail "the same seed gave another adapter"

# A changed recipe repeats what depends on it, and nothing else.
sed -i 's/^epochs = 1/epochs = 0.5/' "$work/book/bake.toml"
"$bakestone" bake "$work/book/bake.toml" --output "$out" >/dev/null 2>"$work/log4"
expect "$work/log4" "before: done before"
expect "$work/log4" "read: done before"
expect "$work/log4" "== after:"

# Both exported forms give the same answer as each other.
"$bakestone" run "$model" "Who founded the Ostrel cooperative?" --adapter "$out/adapter.gguf" --temperature 0 --max-tokens 12 >"$work/a1"
"$bakestone" run "$model" "Who founded the Ostrel cooperative?" --adapter "$out/adapter" --temperature 0 --max-tokens 12 >"$work/a2"
cmp "$work/a1" "$work/a2" || fail "PEFT folder and GGUF adapter answer differently"
[ -s "$work/a1" ] || fail "run printed no answer"

# What a chat tells who is lost in it, without asking the model.
printf '/help\n/foo\n/bye\n' | "$bakestone" run "$model" >"$work/answers" 2>"$work/chat"
expect "$work/chat" "no /foo here"
expect "$work/chat" "/clear forgets"
[ ! -s "$work/answers" ] || fail "the model was asked what the chat should answer"
cmp <("$bakestone" help run) <("$bakestone" run --help) || fail "help VERB is not VERB --help"

"$bakestone" show "$model" --json | python3 -c '
import json, sys
model = json.load(sys.stdin)
assert model["layers"] == 30 and model["vocabulary"] == 49152 and model["licence"] == "Apache-2.0", model'
"$bakestone" doctor --json | python3 -c '
import json, sys
machine = json.load(sys.stdin)
assert machine["read_bandwidth_bytes_per_second"] > 1e9 and machine["cores"] >= 1, machine'
# Packed weights: made once, made anew when damaged, and left out on request; always the same answer.
ask() { BAKESTONE_HOME="$work/home" "$bakestone" run "$model" "Who founded the Ostrel cooperative?" --temperature 0 --max-tokens 12 "$@"; }
ask --no-pack-cache >"$work/unpacked"
[ ! -e "$work/home/cache" ] || fail "--no-pack-cache wrote a cache"
ask >"$work/packed" 2>"$work/packed.log"
packed=$(echo "$work"/home/cache/packed/*.panels)
[ -s "$packed" ] || fail "no packed weights in the home folder"
truncate -s 1000000 "$packed"
ask >"$work/repacked" 2>"$work/repacked.log"
expect "$work/repacked.log" "made anew"
chmod a-w "$work/home/cache/packed"
ask >"$work/mapped" 2>"$work/mapped.log"
chmod u+w "$work/home/cache/packed"
for answer in packed repacked mapped; do
  cmp "$work/unpacked" "$work/$answer" || fail "the answer with $answer weights differs"
done

"$bakestone" bench "$model" --only start-warm,memory,prefill-32,decode-0 --repetitions 1 --decode-tokens 4 --json >"$work/bench.json"
"$bakestone" bench "$model" --only prefill-32 --repetitions 1 --compare "$work/bench.json" >"$work/bench"
grep -q "^prefill-32 .*x$" "$work/bench" || fail "bench --compare printed no ratio"
python3 - "$work/bench.json" <<'END'
import json, sys
figures = {figure["name"]: figure for figure in json.load(open(sys.argv[1]))["figures"]}
assert list(figures) == ["start-warm", "memory", "prefill-32", "decode-0"], figures
assert all(figure["median"] > 0 for figure in figures.values()), figures
assert 0 < figures["decode-0"]["limit_share"], figures
END
ids=$("$bakestone" tokenize "$model" "Hello, world" --json)
[ "$("$bakestone" tokenize "$model" --decode "$ids")" = "Hello, world" ] || fail "tokenize does not round-trip"
echo '{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}' >"$work/context.json"
"$bakestone" template "$model" --context "$work/context.json" >"$work/rendered"
expect "$work/rendered" "<|im_start|>assistant"
"$bakestone" eval "$model" --text "$work/book/general.txt" --text-tokens 200 --json | python3 -c '
import json, sys
text = json.load(sys.stdin)["texts"][0]
assert 0.3 < text["bits_per_byte"] < 3, text'
