#!/usr/bin/env bash
# An adapter trained here, run by PEFT over a float32 copy of the base and here at kExact: no logit may
# differ by 1e-3, in either exported form, with and without rsLoRA; the same of small models of other families; and pairs on
# a mixture's experts there and back. Needs torch, transformers, peft, gguf and
# tokenizers in the Python that PYTHON names (tools/check_peft_logits.py says which versions were used).
source "$(dirname "$0")/../e2e/lib.sh"
needs_python gguf peft tokenizers torch transformers
check_logits=$(dirname "$bakestone")/tests/adapter_logits
[ -x "$check_logits" ] || fail "expected $check_logits: build with -DBAKESTONE_TESTS=ON"

for kind in lora rslora; do
  short_recipe "$work/$kind"
  [ $kind = lora ] || sed -i 's/^\[lora\]/&\nrslora = true/' "$work/$kind/bake.toml"
  "$bakestone" train "$work/$kind/bake.toml" --output "$work/$kind/out" >/dev/null 2>&1 \
    || fail "training with $kind"
  "$python" "$repository/tools/check_peft_logits.py" "$model" "$work/$kind/out/adapter" "$work/$kind.logits" \
    --tokens 200
  "$check_logits" "$model" "$work/$kind/out/adapter" "$work/$kind.logits"
  "$check_logits" "$model" "$work/$kind/out/adapter.gguf" "$work/$kind.logits"
done
"$python" "$repository/tools/check_expert_adapters.py" "$bakestone"
"$bakestone" export "$model" "$work/folder" >/dev/null
"$python" "$repository/tools/check_family_adapters.py" "$bakestone" "$check_logits" "$work/folder"
