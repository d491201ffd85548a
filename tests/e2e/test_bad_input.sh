#!/usr/bin/env bash
# Every wrong command ends in one line on stderr, exit code 1 or 2, and leaves nothing half-written.
source "$(dirname "$0")/lib.sh"

# bad CODE WORDS COMMAND...
bad() {
  local code=$1 words=$2 found=0
  shift 2
  "$bakestone" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || found=$?
  [ "$found" -eq "$code" ] || { cat "$work/stderr" >&2; fail "expected exit $code of '$*', found $found"; }
  expect "$work/stderr" "$words"
  [ "$(wc -l <"$work/stderr")" -le 1 ] || { cat "$work/stderr" >&2; fail "'$*' printed more than one line"; }
  [ ! -s "$work/stdout" ] || fail "'$*' printed results"
}
head -c 100000 "$model" >"$work/cut.gguf"
echo "not a model" >"$work/text.gguf"
: >"$work/empty.gguf"
mkdir "$work/book"

bad 2 "expected a verb"
bad 2 "unknown verb 'brew'" brew
bad 2 "MODEL" run
bad 2 "--max-tokens" run "$model" hello --max-tokens -3
bad 2 "expected bf16, f16 or q8_0, found 'q3'" run "$model" hello --kv-type q3
bad 2 "--threads" eval "$model" --text x --threads 0
bad 2 "--text or --questions" eval "$model"
bad 1 "found none" show no-such-model
bad 1 "found no config.json" show "$work/book"
bad 1 "no such file" show "$work/none.gguf"
bad 1 "cut.gguf" show "$work/cut.gguf"
bad 1 "text.gguf" show "$work/text.gguf"
bad 1 "empty.gguf" show "$work/empty.gguf"
bad 1 "cut.gguf" run "$work/cut.gguf" hello
bad 1 "expected ids from 0" tokenize "$model" --decode "[99999999]"
bad 1 "no-such-recipe.toml" bake "$work/no-such-recipe.toml"
echo 'name = "x' >"$work/book/bake.toml"
bad 1 "line 1" bake "$work/book/bake.toml"
printf 'name = "x"\nbase = "%s"\n' "$model" >"$work/book/bake.toml"
bad 1 "[[stage]]" train "$work/book/bake.toml" --output "$work/out"
[ ! -e "$work/out" ] || fail "a refused recipe left a work folder"
bad 2 "--adapter" run "$model" hello --adapter
bad 1 "$work/text.gguf" run "$model" hello --adapter "$work/text.gguf"
BAKESTONE_ISA=mmx bad 1 "mmx" doctor
bad 2 "found 'prefil-512'" bench "$model" --only decode-0,prefil-512
bad 1 "no-such-bench.json" bench "$model" --compare "$work/no-such-bench.json"
bad 1 "$work/text.gguf" bench "$model" --compare "$work/text.gguf"
BAKESTONE_THREADS=zero bad 1 "BAKESTONE_THREADS" doctor
BAKESTONE_PACK_CACHE=lots bad 1 "BAKESTONE_PACK_CACHE" run "$model" hello

echo "# a comment, then a key with a word that is not known
0123456789abcdef-secret speed=9" >"$work/keys"
bad 1 "line 2" serve "$model" --api-key-file "$work/keys"
refuse "$work/stderr" "0123456789abcdef"
bad 1 "no-such-keys" serve "$model" --api-key-file "$work/no-such-keys"
bad 2 "--tls-key" serve "$model" --tls-certificate "$work/keys"

# Nothing to learn, bad lines, wrong general text: found before any work.
short_recipe "$work/book"
echo '{"messages": [{"role": "user", "content": "only a question"}]}' >"$work/book/train.jsonl"
"$bakestone" train "$work/book/bake.toml" --output "$work/out" >/dev/null 2>"$work/log" && fail "trained on nothing"
expect "$work/log" "at least one token to learn"
