#!/usr/bin/env bash
# Parquet through Arrow's C++ library, which `tools/setup.sh parquet` fetches once: the library is built beside the
# program, its unit tests run, and the same adapter results from Parquet as from JSON lines. Where PyPI is out of
# reach: skipped.
source "$(dirname "$0")/../e2e/lib.sh"
build=$(dirname "$bakestone")
"$repository/tools/setup.sh" parquet 2>"$work/log" || { echo "skipped: no pyarrow: $(tail -n 1 "$work/log")" >&2; exit 77; }
{ cmake -S "$repository" -B "$build" -DBAKESTONE_TESTS=ON && cmake --build "$build" --target bakestone_parquet data_test; } >"$work/log" 2>&1 \
  || { tail -n 20 "$work/log" >&2; fail "the library for Parquet does not build"; }
[ -e "$build/libbakestone_parquet.so" ] || fail "no libbakestone_parquet.so beside the program"

"$build/src/data/data_test" --gtest_filter='Parquet.*' >"$work/log" || { cat "$work/log" >&2; fail "unit tests"; }
expect "$work/log" "[       OK ] Parquet.RowsAreThoseOfJsonLines"
expect "$work/log" "[       OK ] Parquet.DamageIsAnErrorAtEveryByte"

cp "$repository/tests/data/parquet/rows."* "$work/"
for form in jsonl parquet; do
  printf '%s\n' 'name = "forms"' "base = \"$model\"" '[[data]]' 'name = "chats"' "path = \"rows.$form\"" 'licence = "CC0-1.0"' \
    '[lora]' 'rank = 2' 'targets = ["q_proj"]' '[[stage]]' 'name = "learn"' 'method = "sft"' 'data = ["chats"]' 'batch = 5' >"$work/$form.toml"
  "$bakestone" train "$work/$form.toml" --output "$work/$form" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "$form"; }
done
expect "$work/log" "chats: Parquet, messages (detected): 5 rows, 5 learned"
cmp "$work/jsonl/adapter.gguf" "$work/parquet/adapter.gguf" || fail "Parquet trains another adapter than JSON lines"
