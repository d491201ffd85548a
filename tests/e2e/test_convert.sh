#!/usr/bin/env bash
# The real model in other forms: quantized, merged, and measured against what it was.
source "$(dirname "$0")/lib.sh"

text=$BAKESTONE_HOME/data/general-history.txt
"$bakestone" quantize "$model" "$work/f16.gguf" --type f16 >"$work/log" 2>&1
expect "$work/log" "F16 x 211, F32 x 61"
expect "$work/log" "not measured"

# Rows of 576 are no multiple of 256: each substitution is told, and the real bits.
"$bakestone" quantize "$work/f16.gguf" "$work/q4.gguf" --type q4_k_m --tensor blk.0.attn_v.weight=q8_0 \
  --measure "$text" --measure-tokens 300 >"$work/out" 2>"$work/log"
expect "$work/log" "blk.*.attn_q.weight          x 30   Q5_0 instead of Q4_K: rows of 576 weights are no multiple of 256"
expect "$work/out" "bits a weight"
expect "$work/out" "same top-1"
"$bakestone" show "$work/q4.gguf" --json | python3 -c '
import json, sys
model = json.load(sys.stdin)
assert model["licence"] == "Apache-2.0" and model["chat_template"], model
assert model["tensor_types"]["Q5_0"] > 100 and model["tensor_types"]["Q8_0"] >= 15, model["tensor_types"]'
"$bakestone" run "$work/q4.gguf" "What is the capital of France?" --max-tokens 24 --temperature 0 >"$work/out" 2>/dev/null
expect "$work/out" "France"

# An importance matrix of a text, kept and taken again: the same bytes.
"$bakestone" quantize "$work/f16.gguf" "$work/a.gguf" --type iq4_xs --calibrate "$text" --calibrate-tokens 256 \
  --save-imatrix "$work/i.gguf" >"$work/out" 2>"$work/log"
expect "$work/log" "importance: 210 matrices"
"$bakestone" quantize "$work/f16.gguf" "$work/b.gguf" --type iq4_xs --imatrix "$work/i.gguf" >"$work/out" 2>"$work/log"
cmp "$work/a.gguf" "$work/b.gguf" || fail "the kept matrix is not the one that was used"

# What is small already is kept, and what is quantized twice is warned of.
"$bakestone" quantize "$model" "$work/q8.gguf" --type q8_0 >"$work/out" 2>"$work/log"
expect "$work/log" "Q4_1 instead of Q8_0: stored so already"
"$bakestone" quantize "$model" "$work/q40.gguf" --type q4_0 >"$work/out" 2>"$work/log"
expect "$work/log" "are quantized already"

# A small random adapter as a PEFT folder: merged at f16 it answers as beside its base; in 4 bits it is eaten, and
# that is said.
python3 - "$work/peft" <<'PY'
import json, os, random, struct, sys
folder, rank, width, rng = sys.argv[1], 4, 576, random.Random(1)
os.mkdir(folder)
tensors, data = {}, bytearray()
for layer in range(30):
    for name, shape in (("lora_A", [rank, width]), ("lora_B", [width, rank])):
        values = [rng.gauss(0, 0.02) for _ in range(shape[0] * shape[1])]
        begin = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        tensors[f"base_model.model.model.layers.{layer}.self_attn.q_proj.{name}.weight"] = {
            "dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
header = json.dumps(tensors).encode()
with open(f"{folder}/adapter_model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header + data)
with open(f"{folder}/adapter_config.json", "w") as file:
    json.dump({"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj"]}, file)
PY
"$bakestone" merge "$work/f16.gguf" "$work/m.gguf" --adapter "$work/peft" --measure "$text" --measure-tokens 200 \
  --json >"$work/out" 2>"$work/log"
expect "$work/log" "merging 30 of 272 tensors"
refuse "$work/log" "warning"
python3 - "$work/out" <<'PY'
import json, sys
merged, alone = json.load(open(sys.argv[1]))["measured"]["others"]
assert merged["kl_mean"] < 0.05 * alone["kl_mean"], (merged, alone)
PY
"$bakestone" merge "$model" "$work/m4.gguf" --adapter "$work/peft" >"$work/out" 2>"$work/log"
expect "$work/log" "keep the adapter separate"
"$bakestone" merge "$work/f16.gguf" "$work/mix.gguf" --model "$work/q4.gguf=0.3" --method slerp >"$work/out" 2>"$work/log"
expect "$work/out" "mix.gguf"

status=0
"$bakestone" quantize "$work/f16.gguf" "$work/f16.gguf" --type q8_0 2>"$work/log" || status=$?
[ $status -eq 1 ] || fail "a model was replaced by itself"
expect "$work/log" "expected another file"
status=0
"$bakestone" quantize "$work/f16.gguf" "$work/x.gguf" --type q7 2>"$work/log" || status=$?
[ $status -eq 2 ] || fail "an unknown type is a wrong command line"
expect "$work/log" "found 'q7'"
status=0
"$bakestone" quantize "$work/f16.gguf" "$work/x.gguf" --target-size 90MB 2>"$work/log" || status=$?
[ $status -eq 2 ] || fail "a target size needs a text"
expect "$work/log" "expected --calibrate beside it"
[ ! -e "$work/x.gguf" ] || fail "something was written"
