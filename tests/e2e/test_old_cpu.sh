#!/usr/bin/env bash
# A processor without AVX2 (2009's, emulated): the same answers, a plain word that it is slow, no crash;
# and the table that it lacks is refused by name.
source "$(dirname "$0")/lib.sh"
[ "$(uname -m)" = x86_64 ] || { echo "skipped: x86-64 only"; exit 77; }
command -v qemu-x86_64-static >/dev/null || { echo "skipped: no qemu-x86_64-static (Debian: qemu-user-static)"; exit 77; }
old() { qemu-x86_64-static -cpu Nehalem "$bakestone" "$@"; }
tiny=$repository/tests/data/model/tiny.gguf

old doctor --threads 1 >"$work/doctor" 2>"$work/log" || fail "doctor: exit $?"
expect "$work/doctor" "kernels     reference (this machine can run: reference)"
expect "$work/doctor" "no AVX2"
expect "$work/log" "no AVX2"

answer=(run "$tiny" "hello" --max-tokens 8 --temperature 0)
old "${answer[@]}" >"$work/old" 2>"$work/log" || { cat "$work/log" >&2; fail "run: exit $?"; }
[ "$(grep -c "no AVX2" "$work/log")" -eq 1 ] || { cat "$work/log" >&2; fail "expected the word once"; }
"$bakestone" "${answer[@]}" >"$work/new" 2>/dev/null
[ -s "$work/new" ] || fail "no answer"
cmp "$work/old" "$work/new" || fail "another processor, another answer"

BAKESTONE_ISA=avx2 old doctor >/dev/null 2>"$work/log" && fail "avx2 was not refused"
expect "$work/log" "this CPU has no AVX2"
BAKESTONE_ISA=reference old show "$tiny" >/dev/null 2>"$work/log"
refuse "$work/log" "AVX2"
