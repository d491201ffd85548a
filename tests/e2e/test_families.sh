#!/usr/bin/env bash
# A Hugging Face folder, as it was downloaded, is a model for every verb; families are listed.
source "$(dirname "$0")/lib.sh"

"$bakestone" show --families >"$work/out"
expect "$work/out" "gemma3"
"$bakestone" show --families --json | python3 -c '
import json, sys
families = {f["model_types"][0]: f for f in json.load(sys.stdin)}
assert families["llama"]["train"] and "mistral" in families["llama"]["model_types"]
assert families["gemma2"]["train_whole"], families["gemma2"]
assert families["qwen3"]["quantize"] == ["GGUF", "folder"] and families["qwen3"]["to_folder"]
assert families["mixtral"]["train"] and not families["mixtral"]["train_whole"] and families["llama"]["train_whole"]
assert families["qwen2_moe"]["train"] and families["glm4_moe"]["train"] and not families["glm4_moe"]["train_whole"], families["glm4_moe"]
assert families["qwen3_moe"]["quantize"] == ["GGUF", "folder"], families["qwen3_moe"]
assert families["gemma4_text"]["train"] and not families["gemma4_text"]["lost_in_gguf"], families["gemma4_text"]
assert not families["rwkv7"]["train"] and families["rwkv7"]["training_lacks"], families["rwkv7"]
embedding_gemma = "gemma3_text+use_bidirectional_attention"
for kind in (embedding_gemma, "rwkv7", "lfm2", "deepseek_v3", "gpt_oss", "qwen3_5_text", "gemma4_text", "glm4_moe", "bert", "modernbert"):
    assert families[kind]["quantize"] == ["GGUF", "folder"] and families[kind]["to_folder"], families[kind]'

# A random Qwen3 of 96 rows, with a tokenizer of $1 tokens and a chat template.
folder=$work/tiny-qwen3
mkdir "$folder"
cp "$repository/tests/data/families/qwen3/"{config.json,model.safetensors} "$folder/"
printf -- '---\nlicense: apache-2.0\n---\n' >"$folder/README.md"
write_tokenizer() {
  python3 - "$folder" "$1" <<'PY'
import json, sys
folder, size = sys.argv[1], int(sys.argv[2])
tokens = ["<pad>", "<s>", "</s>", "\u0120"] + [chr(c) for c in range(33, 127)]
tokens = tokens[:size - 1] + ["<extra>"]
special = [t for t in tokens if t.startswith("<") and len(t) > 1]
added = [dict(id=tokens.index(t), content=t, single_word=False, lstrip=False, rstrip=False, normalized=False,
              special=True) for t in special]
model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
             fuse_unk=False, byte_fallback=False, vocab={t: i for i, t in enumerate(tokens)}, merges=[])
level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
json.dump(dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
               pre_tokenizer=level, post_processor=None, decoder=level, model=model),
          open(folder + "/tokenizer.json", "w"))
json.dump(dict(eos_token="</s>", chat_template="{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"),
          open(folder + "/tokenizer_config.json", "w"))
PY
}
write_tokenizer 90
"$bakestone" show "$folder" >"$work/out"
expect "$work/out" "qwen3: 4 layers"
expect "$work/out" "Apache-2.0"
refuse "$work/out" "it lacks"
"$bakestone" tokenize "$folder" "hello" --json >"$work/out"
expect "$work/out" "["
"$bakestone" run "$folder" "hello" --max-tokens 100 --temperature 5 --seed 3 >"$work/out" 2>"$work/log" \
  || { cat "$work/log" >&2; fail "running a folder"; }
[ "$(wc -c <"$work/out")" -ge 50 ] || fail "expected an answer of a random model"  # from 90 of the 96 rows
printf 'some words to score here' >"$work/text"
"$bakestone" eval "$folder" --text "$work/text" >"$work/out" 2>"$work/log" || { cat "$work/log" >&2; fail "eval"; }
"$bakestone" run "$folder" "hello" --max-tokens 8 --temperature 0 >"$work/first" 2>/dev/null
"$bakestone" run "$folder" "hello" --max-tokens 8 --temperature 0 --no-pack-cache >"$work/second" 2>/dev/null
cmp "$work/first" "$work/second"

# Other mechanisms: a latent, a state beside the pages (a second request finds no cached prefix), experts in MXFP4,
# keys and values of another layer, experts beside an MLP, no attention at all.
for kind in deepseek_v3 lfm2 qwen3_5_text gpt_oss gemma4_text gemma4 rwkv7; do
  other=$work/$kind
  mkdir "$other"
  cp "$repository/tests/data/families/$kind/"{config.json,model.safetensors} "$folder/"tokenizer*.json "$other/"
  "$bakestone" run "$other" "hello" --max-tokens 8 --temperature 0 >"$work/first" 2>"$work/log" || { cat "$work/log" >&2; fail "$kind"; }
  [ -s "$work/first" ] || fail "expected an answer of $kind"
done
# They train, and what came of it is served beside them.
for i in $(seq 40); do printf 'the %s words of a text that is read %s times\n\n' "$i" "$i"; done >"$work/read.txt"
for kind in deepseek_v3 qwen3_5_text gemma4_text; do
  printf 'name = "read"\nbase = "%s"\n[[data]]\nname = "text"\npath = "read.txt"\n[adapter]\nrank = 2\n[[stage]]\nname = "read"\nmethod = "pretrain"\ndata = ["text"]\nbatch = 2\nsequence_length = 64\n' \
    "$work/$kind" >"$work/$kind.toml"
  "$bakestone" train "$work/$kind.toml" --output "$work/$kind-out" >"$work/out" 2>"$work/log" || { cat "$work/log" >&2; fail "training $kind"; }
  "$bakestone" run "$work/$kind" "hello" --adapter "$work/$kind-out/adapter" --max-tokens 4 --temperature 0 >"$work/first" 2>"$work/log" \
    || { cat "$work/log" >&2; fail "what $kind was trained to"; }
done
"$bakestone" run "$folder" "hello" --max-tokens 8 --temperature 0 >"$work/first" 2>/dev/null

# RWKV's vocabulary is a text file of its own.
rm "$work/rwkv7/"tokenizer*.json
cp "$repository/tests/data/rwkv_tokenizer/rwkv_vocab_v20230424.txt" "$work/rwkv7/"
"$bakestone" tokenize "$work/rwkv7" "A" --json >"$work/out"
expect "$work/out" "66"
"$bakestone" export "$work/rwkv7" "$work/rwkv7.gguf" 2>"$work/log" || { cat "$work/log" >&2; fail "RWKV as GGUF"; }
"$bakestone" export "$work/rwkv7.gguf" "$work/rwkv7-again" 2>"$work/log" || { cat "$work/log" >&2; fail "and back"; }
for model in rwkv7 rwkv7.gguf rwkv7-again; do
  "$bakestone" run "$work/$model" "A B" --raw --max-tokens 8 --temperature 0 >"$work/$model.out" 2>"$work/log" \
    || { cat "$work/log" >&2; fail "running $model"; }
  cmp "$work/rwkv7.out" "$work/$model.out"
done

# An encoder makes vectors, whatever stands beside a text, and does not write.
encoder=$work/bert
mkdir "$encoder"
cp "$repository/tests/data/families/bert/"{config.json,model.safetensors} "$encoder/"
python3 - "$encoder" <<'PY'
import json, sys
tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab", "##c", "d"]
ends = [dict(SpecialToken=dict(id=t, type_id=0)) for t in ("[CLS]", "[SEP]")]
json.dump(dict(version="1.0", added_tokens=[], normalizer=dict(type="BertNormalizer", clean_text=True, lowercase=True,
               handle_chinese_chars=True, strip_accents=None), pre_tokenizer=dict(type="BertPreTokenizer"),
               post_processor=dict(type="TemplateProcessing", single=[ends[0], dict(Sequence=dict(id="A", type_id=0)), ends[1]]),
               model=dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=100,
                          vocab={t: i for i, t in enumerate(tokens)})), open(sys.argv[1] + "/tokenizer.json", "w"))
PY
"$bakestone" tokenize "$encoder" "ABC d" --json >"$work/out"
expect "$work/out" "[2,4,5,6,3]"
printf 'abc d\nAb\n' | "$bakestone" embed "$encoder" >"$work/vectors" 2>"$work/log" || { cat "$work/log" >&2; fail "embed"; }
"$bakestone" embed "$encoder" ab >"$work/one" 2>/dev/null
python3 - "$work/vectors" "$work/one" <<'PY'
import json, sys
both, one = ([json.loads(line)["embedding"] for line in open(path)] for path in sys.argv[1:])
assert len(both) == 2 and len(both[0]) == 32 and both[0] != both[1], both
assert both[1] == one[0], "a text's vector depends on its neighbours"
assert all(abs(sum(x * x for x in v) - 1) < 1e-5 for v in both)
PY
# Other encoders, with the kind of tokenizer that XLM-R has.
for kind in xlm-roberta roberta modernbert; do
  other=$work/$kind
  mkdir "$other"
  cp "$repository/tests/data/families/$kind/"{config.json,model.safetensors} "$other/"
  python3 - "$other" <<'PY'
import json, sys
pieces = [["<s>", 0], ["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["\u2581", -3], ["\u2581ab", -1], ["c", -2], ["d", -2]]
ends = [dict(SpecialToken=dict(id=t, type_id=0)) for t in ("<s>", "</s>")]
json.dump(dict(version="1.0", added_tokens=[dict(id=i, content=pieces[i][0], special=True, normalized=False) for i in (0, 1, 2)],
               normalizer=None, pre_tokenizer=dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True),
               post_processor=dict(type="TemplateProcessing", single=[ends[0], dict(Sequence=dict(id="A", type_id=0)), ends[1]]),
               decoder=dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True),
               model=dict(type="Unigram", unk_id=3, vocab=pieces)), open(sys.argv[1] + "/tokenizer.json", "w"))
PY
  "$bakestone" tokenize "$other" "abc  d?" --json >"$work/out"
  expect "$work/out" "[0,5,6,4,4,7,3,2]"
  "$bakestone" embed "$other" abc >"$work/out" 2>"$work/log" || { cat "$work/log" >&2; fail "embed with $kind"; }
  expect "$work/out" "embedding"
done

# EmbeddingGemma: two dense layers behind the mean.
gemma=$work/embeddinggemma
cp -r "$repository/tests/data/families/gemma3_text+use_bidirectional_attention" "$gemma"
cp "$encoder/tokenizer.json" "$gemma/"
"$bakestone" embed "$gemma" abc >"$work/first"
python3 -c 'import json, sys; v = json.load(sys.stdin)["embedding"]; assert len(v) == 24, v' <"$work/first"
"$bakestone" export "$gemma" "$gemma.gguf" 2>"$work/log" || { cat "$work/log" >&2; fail "EmbeddingGemma as GGUF"; }
"$bakestone" embed "$gemma.gguf" abc >"$work/second"
python3 - "$work/first" "$work/second" <<'PY'
import json, sys
a, b = (json.load(open(path))["embedding"] for path in sys.argv[1:])
assert len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) < 1e-5, (a, b)
PY

# A classifier scores texts, and texts beside a question; a model without a head does not.
scorer=$work/classifier
mkdir "$scorer"
cp "$repository/tests/data/classifiers/bert/"{config.json,model.safetensors} "$scorer/"
python3 - "$encoder/tokenizer.json" "$scorer/tokenizer.json" <<'PY'
import json, sys
tokenizer = json.load(open(sys.argv[1]))
token = lambda name, kind: dict(SpecialToken=dict(id=name, type_id=kind))
text = lambda name, kind: dict(Sequence=dict(id=name, type_id=kind))
tokenizer["post_processor"]["pair"] = [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)]
json.dump(tokenizer, open(sys.argv[2], "w"))
PY
printf 'abc d\nab\n' | "$bakestone" score "$scorer" "d ab" >"$work/pairs" 2>"$work/log" || { cat "$work/log" >&2; fail "score"; }
expect "$work/log" "tokens: 14"
echo ab | "$bakestone" score "$scorer" "d ab" >"$work/pair" 2>/dev/null
echo ab | "$bakestone" score "$scorer" >"$work/alone" 2>/dev/null
python3 - "$work/pairs" "$work/pair" "$work/alone" <<'PY'
import json, sys
pairs, pair, alone = ([json.loads(line) for line in open(path)] for path in sys.argv[1:])
assert len(pairs) == 2 and all(len(p["logits"]) == 3 for p in pairs), pairs
assert pairs[1]["logits"] == pair[0]["logits"] != alone[0]["logits"], (pairs, pair, alone)
assert all(p["label"] == f"LABEL_{p['logits'].index(max(p['logits']))}" for p in pairs + alone)
PY
status=0
echo ab | "$bakestone" score "$encoder" >/dev/null 2>"$work/log" || status=$?
[ $status -eq 1 ] || fail "expected a model without a head not to score"
expect "$work/log" "expected a model with a head that scores texts"
status=0
echo ab | "$bakestone" score "$work/xlm-roberta" ab >/dev/null 2>"$work/log" || status=$?
[ $status -eq 1 ] || fail "expected no scores of xlm-roberta"

status=0
"$bakestone" run "$encoder" ab >/dev/null 2>"$work/log" || status=$?
[ $status -eq 1 ] || fail "expected an encoder not to write"
expect "$work/log" "expected a model that writes, found an encoder (bert)"

# Trained as it is, too, and served with the adapter.
python3 -c 'print("the quick brown fox jumps over the lazy dog. " * 60)' >"$work/notes.txt"
cat >"$work/bake.toml" <<TOML
name = "tiny"
base = "$folder"
[[data]]
name = "notes"
path = "notes.txt"
licence = "CC0-1.0"
[lora]
rank = 4
[[stage]]
name = "read"
method = "pretrain"
data = ["notes"]
batch = 2
learning_rate = 0.05
TOML
"$bakestone" train "$work/bake.toml" --output "$work/out.train" >"$work/out" 2>"$work/log" || { cat "$work/log" >&2; fail "training a folder"; }
"$bakestone" run "$folder" "hello" --adapter "$work/out.train/adapter" --max-tokens 8 --temperature 0 >"$work/second" 2>"$work/log" \
  || { cat "$work/log" >&2; fail "serving the adapter"; }
! cmp -s "$work/first" "$work/second" || fail "the adapter changed nothing"

# More tokens than rows: refused in input, not the model.
write_tokenizer 98
"$bakestone" run "$folder" "hello" --max-tokens 4 >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "expected an answer"; }
status=0
"$bakestone" run "$folder" "hello }" --max-tokens 4 >/dev/null 2>"$work/log" || status=$?
[ $status -eq 1 ] || fail "expected a token beyond the rows to be refused"
expect "$work/log" "expected token ids in [0, 96)"

# What is not known, and what lies.
refused() {
  status=0
  "$bakestone" run "$folder" hi >/dev/null 2>"$work/log" || status=$?
  [ $status -eq 1 ] || fail "expected exit 1, found $status"
  expect "$work/log" "$1"
}
change() { python3 -c '
import json, sys
path, key, value = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = json.load(open(path))
config[key] = value
json.dump(config, open(path, "w"))' "$folder/config.json" "$1" "$2"; }
change model_type '"mamba2"'
refused "that family needs a state-space mixer, which is not supported; the nearest known is gemma"
change model_type '"qwen3"'
change num_hidden_layers 5
refused "model.layers.4.input_layernorm.weight"
change num_hidden_layers 4
change hidden_act '"relu"'
refused "hidden_act: expected silu, found 'relu'"
change hidden_act '"silu"'
change quantization_config '{"quant_method": "awq"}'
refused "'awq'"
