#!/usr/bin/env bash
# Direct preference optimization on a few hundred pairs beside TRL, from the same adapter, in the same order: on pairs
# that neither has seen, our reward accuracy is at least TRL's. Needs torch, transformers, peft and trl in the Python that
# PYTHON names (tools/check_preferences.py says which versions were used). About 15 minutes on 2 cores.
source "$(dirname "$0")/../e2e/lib.sh"
needs_python peft torch transformers trl
check=$repository/tools/check_preferences.py
"$bakestone" export "$model" "$work/base" --type f32 2>/dev/null || fail "export of the base"
"$python" "$check" prepare "$work/base" "$repository/examples/handbook" "$work/run" >"$work/log" 2>&1 \
  || { cat "$work/log" >&2; fail "prepare"; }
"$bakestone" train "$work/run/dpo.toml" --base "$model" --output "$work/run/dpo" >"$work/log" 2>&1 \
  || { cat "$work/log" >&2; fail "training"; }
"$python" "$check" compare "$work/base" "$work/run" 2>"$work/log" || { cat "$work/log" >&2; fail "TRL's reward accuracy is higher"; }
