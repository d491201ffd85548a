#!/usr/bin/env python3
"""Whether what `bakestone export` and `merge` write is the same model elsewhere: run by hand, or by
tests/long/test_export.sh.

    check_export.py BAKESTONE [FOLDER]   (Python with torch, transformers, peft, gguf; written with 2.15, 5.24, 0.21, 0.19)

1. Tiny random models of every family that `transformers` has and that can be written both ways are saved by it,
   exported to GGUF and back to a folder, and loaded: the same logits. Where `transformers` reads GGUF files of the
   family, those give the same, too. RWKV-7, which it has not, comes back as the same tensors; EmbeddingGemma with the
   dense layers behind it.
2. Every tensor that the package `gguf` reads from the file is the folder's, row permutation undone.
3. A PEFT adapter goes to GGUF and back: PEFT's logits are the same; merged into the base, so are the base's.
With FOLDER, the GGUF files stay there with their logits, for check_llamacpp_families.mjs.
Exits 77 where a package is missing."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
    import peft
    import safetensors.torch
    import tokenizers
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import make_family_goldens as goldens

VOCAB = 96
PERMUTED = ("llama", "granite", "smollm3")  # GGUF's architectures with rows of queries and keys in another order
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)
# Settings that GGUF files of the family can say, and that others compute: no window where llama.cpp knows none.
USUAL = {
    "llama": goldens.rope(700.0),
    "gemma2": dict(query_pre_attn_scalar=16),
    "gemma3_text": dict(query_pre_attn_scalar=16, num_hidden_layers=6,
                        layer_types=["sliding_attention"] * 5 + ["full_attention"]),
    "mistral": dict(sliding_window=None), "starcoder2": dict(sliding_window=None),
    # llama.cpp chooses Phi-3's factors by the context that it has room for, which is 256 tokens here.
    "phi3": dict(sliding_window=None, max_position_embeddings=1024, original_max_position_embeddings=512, rope_parameters=dict(
        goldens.FAMILIES["phi3"][1]["rope_parameters"], original_max_position_embeddings=512)),
    # llama.cpp knows no DeepSeek V2 with groups, nor one of few layers whose queries have no latent; no ramp of YaRN
    # but the usual one, which ends at whole channels; heads of keys and values of one size.
    "deepseek_v2": dict(q_lora_rank=24, n_group=1, topk_group=1, topk_method="greedy")
                   | goldens.rope(700.0, **YARN, mscale=0.707, mscale_all_dim=0.707),
    "gpt_oss": goldens.rope(700.0),
    "qwen3_5_text": dict(linear_value_head_dim=8), "qwen3_5_moe_text": dict(linear_value_head_dim=8),
    "qwen3": dict(head_dim=128),  # transformers' reader of GGUF knows no other
    "olmo3": dict(rope_parameters=dict(
        full_attention=dict(rope_theta=700.0, **YARN),
        sliding_attention=dict(rope_type="default", rope_theta=700.0))),
}
FAMILIES = {kind: goldens.BASE | settings | dict(rms_norm_eps=1e-6, norm_eps=1e-6) | USUAL.get(kind, {})
            for kind, (_, settings, _) in goldens.FAMILIES.items() if kind not in goldens.ENCODERS + ["rwkv7"]}
FAMILIES["llama-3"] = FAMILIES["llama"] | goldens.FAMILIES["llama"][1] | dict(rms_norm_eps=1e-6)  # factors as a tensor


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, words))}\n{done.stderr}")


def save_model(folder, kind, settings):
    model = goldens.make_model("llama" if kind == "llama-3" else kind, settings)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_tokenizer(folder):
    tokens = ["<pad>", "<s>", "</s>", "\u0120"] + [chr(c) for c in range(33, 125)]
    added = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, t in enumerate(tokens[:3])]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                 fuse_unk=False, byte_fallback=False, vocab={t: i for i, t in enumerate(tokens)}, merges=[])
    json.dump(dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
                   pre_tokenizer=level, post_processor=None, decoder=level, model=model),
              open(folder / "tokenizer.json", "w"))
    json.dump(dict(eos_token="</s>", tokenizer_class="PreTrainedTokenizerFast"),
              open(folder / "tokenizer_config.json", "w"))


def prompt():
    return torch.randint(3, VOCAB, (1, goldens.LENGTH), generator=torch.Generator().manual_seed(2))


def logits(model):
    with torch.no_grad():
        return model(prompt(), use_cache=False).logits.float()


def same(what, found, expected, limit=1e-4):
    worst = (found - expected).abs().max().item()
    print(f"{'ok' if worst <= limit else 'FAILED'}  {what}: largest difference of logits {worst:.2e}")
    if worst > limit:
        sys.exit(1)


def check_values(path, model):
    reader = gguf.GGUFReader(path)
    permuted = reader.get_field("general.architecture").contents() in PERMUTED
    mine = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    config, checked = model.config, 0
    for name, tensor in model.state_dict().items():
        site = name.split(".")[-2] if name.startswith("model.layers.") else ""
        if site not in names or not name.endswith(".weight"):
            continue
        expected = tensor.numpy()
        if permuted and site in ("q_proj", "k_proj"):
            count = config.num_attention_heads if site == "q_proj" else config.num_key_value_heads
            rows, cols = expected.shape
            expected = expected.reshape(count, 2, rows // count // 2, cols).swapaxes(1, 2).reshape(rows, cols)
        found = mine[f"blk.{name.split('.')[2]}.{names[site]}.weight"]
        if not np.array_equal(found.reshape(expected.shape), expected):
            sys.exit(f"FAILED: {path}: {name}")
        checked += 1
    if not all(np.isfinite(values[values < 1e29]).all() for values in mine.values()):
        sys.exit(f"FAILED: {path}: not finite")
    print(f"ok  {path.name}: gguf reads {len(mine)} tensors, {checked} of attention held against the folder's")


def check_family(bakestone, work, kind, settings, kept):
    # The folder's name becomes the model's, and llama.cpp asks one that has phi3 in it for Phi-3's own tokens.
    folder, file = work / kind.replace("phi3", "phi-of-3"), work / f"{kind}.gguf"
    model = save_model(folder, kind, settings)
    expected = logits(model)
    run(bakestone, "export", folder, file)
    check_values(file, model)
    run(bakestone, "export", file, work / f"{kind}-again")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        work / f"{kind}-again", attn_implementation="eager", dtype=torch.float32).eval()
    same(f"{kind}: folder -> GGUF -> folder", logits(again), expected)
    if kept:
        (kept / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, kept / kind / "model.gguf")
        safetensors.torch.save_file(dict(tokens=prompt()[0].int(), logits=expected[0].contiguous()),
                                    kept / kind / "golden.safetensors")
    if kind not in ("llama", "qwen2", "qwen3"):  # its reader knows few others, or not all of their keys
        return
    again = transformers.AutoModelForCausalLM.from_pretrained(work, gguf_file=file.name).eval()
    same(f"{kind}: folder -> GGUF -> transformers", logits(again), expected)


def there_and_back(bakestone, folder, kept, kind, tokens, logits):
    """The folder as a GGUF file, which is kept with the logits, and as a folder again."""
    file, again = folder.parent / f"{folder.name}.gguf", folder.parent / f"{folder.name}-again"
    run(bakestone, "export", folder, file)
    run(bakestone, "export", file, again)
    if kept:
        (kept / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, kept / kind / "model.gguf")
        safetensors.torch.save_file(dict(tokens=tokens.int(), logits=logits.contiguous()),
                                    kept / kind / "golden.safetensors")
    return again


def same_tensors(what, folder, again):
    before, after = (safetensors.torch.load_file(f / "model.safetensors") for f in (folder, again))
    differing = {name for name in before.keys() | after.keys()
                 if name not in before or name not in after or not torch.equal(before[name].float(), after[name].float())}
    print(f"{'FAILED' if differing else 'ok'}  {what}: {len(before)} tensors, {len(differing)} differ {sorted(differing)[:3]}")
    if differing:
        sys.exit(1)


def check_rwkv(bakestone, work, kept):
    folder = work / "rwkv7"
    folder.mkdir()
    # The published models' sizes: llama.cpp computes heads of 64, and takes 64e-5 for the epsilon of their norm.
    goldens.RWKV.update(hidden=128, ffn=256)
    goldens.write_rwkv(dict(head_dim=64, norm_eps=1e-5), folder)
    (folder / "model.gguf").unlink()
    save_tokenizer(folder)
    golden = safetensors.torch.load_file(folder / "golden.safetensors")
    again = there_and_back(bakestone, folder, kept, "rwkv7", golden["tokens"], golden["logits"])
    same_tensors("rwkv7: folder -> GGUF -> folder", folder, again)
    config, before = (json.loads((f / "config.json").read_text()) for f in (again, folder))
    differing = [name for name in before if name not in ("torch_dtype", "hidden_ratio", "bos_token_id", "eos_token_id")
                 and config.get(name) != before[name]]
    if differing:
        sys.exit(f"FAILED: rwkv7: config.json: {differing}")


def check_embedding_gemma(bakestone, work, kept):
    kind, folder = "gemma3_text+use_bidirectional_attention", work / "embedding-gemma"
    settings = goldens.BASE | goldens.FAMILIES[kind][1] | dict(
        rms_norm_eps=1e-6, query_pre_attn_scalar=16, num_hidden_layers=6,
        layer_types=["sliding_attention"] * 5 + ["full_attention"])
    model = save_model(folder, kind, settings)
    tokens = prompt()
    with torch.no_grad():
        rows = model(input_ids=tokens).last_hidden_state[0].float()
    pooled = rows
    for weight in goldens.write_modules(model, folder, (48, 32)):  # llama.cpp wants the model's width again
        pooled = pooled @ weight.T
    again = there_and_back(bakestone, folder, kept, kind, tokens[0], pooled)
    loaded = transformers.AutoModel.from_pretrained(again, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        same("EmbeddingGemma: folder -> GGUF -> folder", loaded(input_ids=tokens).last_hidden_state[0].float(), rows)
    for name in ("2_Dense", "3_Dense"):
        same_tensors(f"EmbeddingGemma, {name}", folder / name, again / name)
        if json.loads((folder / name / "config.json").read_text()) != json.loads((again / name / "config.json").read_text()):
            sys.exit(f"FAILED: EmbeddingGemma: {name}/config.json")
    modules = [json.loads((f / "modules.json").read_text()) for f in (folder, again)]
    if modules[0] != modules[1]:
        sys.exit(f"FAILED: EmbeddingGemma: modules.json: {modules[1]}")


def check_sentencepiece(bakestone, work):
    """Models whose folder has SentencePiece's own file, as GGUF and as a folder again: what `tokenizers` and transformers
    make of the tokenizer.json are the GGUF file's ids."""
    data = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
    lines = map(json.loads, (data / "tokenizer/corpus.jsonl").read_text().split("\n")[:-1])
    texts = [line for line in lines if isinstance(line, str)]
    for kind, model, name, vocabulary in (("llama", "sp_bpe", "tokenizer.model", 900),
                                          ("xlm-roberta", "fairseq", "sentencepiece.bpe.model", 702)):
        folder, special = work / f"{model}-model", kind != "llama"
        settings = goldens.BASE | goldens.FAMILIES[kind][1] | dict(vocab_size=vocabulary)
        goldens.make_model(kind, settings | ({} if special else goldens.rope(700.0))).save_pretrained(folder)
        shutil.copy(data / f"hf_tokenizer/{model}.model", folder / name)
        again = there_and_back(bakestone, folder, None, kind, None, None)
        rows = "".join(json.dumps(dict(text=text, add_special=special)) + "\n" for text in texts)
        done = subprocess.run([str(bakestone), "tokenize", f"{folder}.gguf", "--jsonl"], input=rows, capture_output=True, text=True)
        expected = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
        written = transformers.AutoTokenizer.from_pretrained(again)
        plain = tokenizers.Tokenizer.from_file(str(again / "tokenizer.json"))
        plain.encode_special_tokens = True  # their spellings are text, but a Unigram model has them as pieces
        differing = []
        for text, ids in zip(texts, expected, strict=True):
            spelled = any(token in text for token in ("<s>", "</s>", "<pad>", "<unk>", "<mask>"))
            found = [ids if spelled and special else plain.encode(text, add_special_tokens=special).ids,
                     ids if spelled else written(text, add_special_tokens=special)["input_ids"]]
            if found != [ids, ids]:
                differing.append(text)
        print(f"{'FAILED' if differing else 'ok'}  {model}: {len(texts)} texts, {len(differing)} cut otherwise {differing[:2]}")
        if differing:
            sys.exit(1)


def check_tokenizer(bakestone, work):
    """The real model's folder, where that model is given: its tokenizer and its weights."""
    real = os.environ.get("BAKESTONE_TEST_MODEL")
    if not real:
        return
    run(bakestone, "export", real, work / "real", "--type", "f16")
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "real")
    for text in ("Hello, world: 1234 words\n\n  indented", "d\u00e9j\u00e0 vu \u4f60\u597d", "<|im_start|>user\nHi<|im_end|>"):
        done = subprocess.run([str(bakestone), "tokenize", real, text, "--json"], capture_output=True, text=True)
        expected = json.loads(done.stdout)
        expected = expected if isinstance(expected, list) else expected.get("ids", expected.get("tokens"))
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        if "<|" not in text and found != expected:
            sys.exit(f"FAILED: {text!r}: transformers {found}, bakestone {expected}")
    model = transformers.AutoModelForCausalLM.from_pretrained(work / "real", dtype=torch.float32).eval()
    with torch.no_grad():
        prompt = tokenizer("The capital of France is", return_tensors="pt")
        print("ok  real model, read by transformers:",
              repr(tokenizer.decode(model.generate(**prompt, max_new_tokens=8, do_sample=False)[0])))


def main():
    bakestone = pathlib.Path(sys.argv[1]).resolve()
    os.environ["BAKESTONE_HOME"] = tempfile.mkdtemp()
    work = pathlib.Path(tempfile.mkdtemp())
    kept = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    for kind, settings in FAMILIES.items():
        check_family(bakestone, work, kind, settings, kept)
    check_rwkv(bakestone, work, kept)
    check_embedding_gemma(bakestone, work, kept)
    check_sentencepiece(bakestone, work)
    check_tokenizer(bakestone, work)
    base, file = work / "llama", work / "llama.gguf"
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=16, use_rslora=True,
                                                         target_modules=["q_proj", "k_proj", "down_proj"]))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                parameter.normal_(0, 0.2)
    expected = logits(adapted.eval())
    adapted.save_pretrained(work / "peft")
    run(bakestone, "export", work / "peft", work / "a.gguf", "--base", file)
    run(bakestone, "export", work / "a.gguf", work / "again", "--base", file)
    fresh = transformers.AutoModelForCausalLM.from_pretrained(base)
    same("adapter: PEFT -> GGUF -> PEFT", logits(peft.PeftModel.from_pretrained(fresh, work / "again").eval()), expected)
    run(bakestone, "merge", base, work / "merged.gguf", "--adapter", work / "peft")
    merged = transformers.AutoModelForCausalLM.from_pretrained(work, gguf_file="merged.gguf").eval()
    same("adapter merged, read by transformers", logits(merged), expected)


if __name__ == "__main__":
    main()
