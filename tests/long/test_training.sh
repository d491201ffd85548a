#!/usr/bin/env bash
# Ten steps of preferences against TRL, and ten of chats against PyTorch and PEFT, on the real model from the same
# adapter: losses within 1e-3, and the values that training made. Needs torch, transformers, peft and trl in the Python
# that PYTHON names (tools/check_training.py says which versions were used).
source "$(dirname "$0")/../e2e/lib.sh"
needs_python peft torch transformers trl
check=$repository/tools/check_training.py
"$bakestone" export "$model" "$work/base" --type f32 2>/dev/null || fail "export of the base"
"$python" "$check" prepare "$work/base" "$work/run" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "prepare"; }
for name in sft dpo; do
  "$bakestone" train "$work/run/$name.toml" --base "$model" --output "$work/run/$name" >"$work/log" 2>&1 \
    || { cat "$work/log" >&2; fail "training of $name"; }
  "$python" "$check" $name "$work/base" "$work/run" 2>"$work/log" || { cat "$work/log" >&2; fail "$name is not PyTorch's"; }
done
