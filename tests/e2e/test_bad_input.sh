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
bad 2 "--threads: expected a whole number from 1 to 1024, found 'abc'" run "$model" hello --threads abc
bad 2 "--temperature: expected a number from 0 to 100, found 'nan'" run "$model" hello --temperature nan
bad 2 "--density: expected a number from" merge "$model" "$work/x.gguf" --adapter a --method ties --density nan
bad 2 "--max-tokens: expected a value, found none" run "$model" hello --max-tokens
bad 2 "--threads: expected once, found several times" run "$model" hello --threads 1 --threads 2
bad 2 "--version: expected nothing more, found 'now'" --version now
bad 2 "help: expected nothing more, found 'me'" help run me
bad 2 "becomes a folder: expected an OUT that does not end with .gguf" export "$model" "$work/x.gguf"
bad 2 "--text or --questions" eval "$model"
bad 1 "found none" show no-such-model
bad 1 "found no config.json" show "$work/book"
bad 1 "no such file" show "$work/none.gguf"
bad 1 "neither a file nor a folder" show /dev/null
printf 'h\0i\0 \0t\0h\0e\0r\0e\0' >"$work/wide.txt"
printf '\377\330\377\340\0\020JFIF' >"$work/photo.jpg"
bad 1 "wide.txt: expected text in UTF-8, found UTF-16" eval "$model" --text "$work/wide.txt"
bad 1 "photo.jpg: expected text, found binary data" eval "$model" --text "$work/photo.jpg"
bad 1 "photo.jpg: expected text, found binary data" quantize "$model" "$work/x.gguf" --type q4_0 --measure "$work/photo.jpg"
bad 1 "photo.jpg: expected text, found binary data" quantize "$model" "$work/x.gguf" --type q4_0 --calibrate "$work/photo.jpg"
bad 1 "none.parquet: expected a Parquet file, found none" data check "$work/none.parquet"
[ ! -e "$work/x.gguf" ] || fail "a refused command wrote a model"
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
bad 1 "found nothing there" serve "$model" --adapter "x=$work/none.gguf"

# Results that do not reach the disk are a failure.
"$bakestone" tokenize "$model" hello >/dev/full 2>"$work/stderr" && fail "a full disk looks like success"
expect "$work/stderr" "cannot write the results to standard output"

# A report on a file without a row is a report, and a failure.
printf '\n\n' >"$work/blank.jsonl"
"$bakestone" data check "$work/blank.jsonl" >"$work/stdout" 2>"$work/stderr" && fail "data check of nothing"
expect "$work/stdout" "rows               0"
expect "$work/stderr" "found none that can be read: blank.jsonl"

# Nothing to learn, bad lines, wrong general text: found before any work.
short_recipe "$work/book"
echo '{"messages": [{"role": "user", "content": "only a question"}]}' >"$work/book/train.jsonl"
"$bakestone" train "$work/book/bake.toml" --output "$work/out" >/dev/null 2>"$work/log" && fail "trained on nothing"
expect "$work/log" "at least one token to learn"
