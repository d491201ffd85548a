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

# An adapter goes to GGUF and back, and a Hugging Face folder becomes a GGUF file that answers the same.
"$bakestone" export "$work/peft" "$work/a.gguf" --base "$model" >"$work/out" 2>"$work/log"
"$bakestone" export "$work/a.gguf" "$work/again" --base "$model" >"$work/out" 2>"$work/log"
python3 - "$work/peft" "$work/again" <<'PY'
import json, struct, sys
def tensors(folder):
    with open(folder + "/adapter_model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    return {k: data[slice(*v["data_offsets"])] for k, v in header.items() if k != "__metadata__"}
assert tensors(sys.argv[1]) == tensors(sys.argv[2])
PY
# The real model as a folder answers as the file does.
"$bakestone" export "$work/f16.gguf" "$work/folder" >"$work/out" 2>"$work/log"
for one in "$work/f16.gguf" "$work/folder"; do
  "$bakestone" run "$one" "What is the capital of France?" --max-tokens 12 --temperature 0 --no-pack-cache 2>/dev/null
done >"$work/out"
[ "$(sort -u "$work/out" | wc -l)" -eq 1 ] || { cat "$work/out" >&2; fail "the folder answers otherwise than the file"; }
rm -r "$work/folder"
folder=$work/tiny-qwen3
mkdir "$folder"
cp "$repository/tests/data/families/qwen3/"{config.json,model.safetensors} "$folder/"
printf -- '---\nlicense: apache-2.0\n---\n' >"$folder/README.md"
python3 - "$folder" <<'PY'
import json, sys
tokens = ["<pad>", "<s>", "</s>", "\u0120"] + [chr(c) for c in range(33, 125)]
added = [dict(id=i, content=t, special=True) for i, t in enumerate(tokens[:3])]
level = dict(type="ByteLevel", add_prefix_space=False, use_regex=True)
json.dump(dict(version="1.0", added_tokens=added, normalizer=None, pre_tokenizer=level, post_processor=None,
               decoder=level, model=dict(type="BPE", vocab={t: i for i, t in enumerate(tokens)}, merges=[])),
          open(sys.argv[1] + "/tokenizer.json", "w"))
json.dump(dict(eos_token="</s>", chat_template="{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"),
          open(sys.argv[1] + "/tokenizer_config.json", "w"))
PY
"$bakestone" export "$folder" "$work/tiny.gguf" >"$work/out" 2>"$work/log"
for one in "$folder" "$work/tiny.gguf"; do
  "$bakestone" run "$one" "hello" --max-tokens 30 --temperature 0 2>/dev/null
done >"$work/out"
python3 -c 'import sys; a = open(sys.argv[1]).read(); assert len(a) > 20 and a[:len(a) // 2] == a[len(a) // 2:], a' "$work/out"
"$bakestone" show "$work/tiny.gguf" >"$work/out"
expect "$work/out" "Apache-2.0"
"$bakestone" quantize "$folder" "$work/tiny8.gguf" --type q8_0 >"$work/out" 2>"$work/log"
status=0
"$bakestone" export "$work/peft" "$work/x.gguf" 2>"$work/log" || status=$?
[ $status -eq 2 ] || fail "an adapter without its base"
status=0
"$bakestone" export "$work/peft" "$work/x.gguf" --base "$work/tiny.gguf" 2>"$work/log" || status=$?
[ $status -eq 1 ] || fail "an adapter of another base"
expect "$work/log" "trained on another base"

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
