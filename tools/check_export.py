#!/usr/bin/env python3
"""Whether what `bakestone export` and `merge` write is the same model elsewhere: run by hand, or by
tests/long/test_export.sh.

    check_export.py BAKESTONE      (Python with torch, transformers, peft, gguf; written with 2.9, 5.24, 0.21, 0.19)

1. Tiny random models of several families are saved by `transformers`, exported to GGUF, and loaded back from the GGUF
   file by `transformers` (its own reader): the same logits, where it reads that family.
2. Every tensor that the package `gguf` reads from the file is the folder's, row permutation undone.
3. A PEFT adapter goes to GGUF and back: PEFT's logits are the same; merged into the base, so are the base's.
Exits 77 where a package is missing."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
    import peft
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

VOCAB = 96
FAMILIES = {
    "llama": dict(model_type="llama", num_key_value_heads=2, tie_word_embeddings=False),
    "mistral": dict(model_type="mistral", num_key_value_heads=2, sliding_window=None),
    "qwen2": dict(model_type="qwen2", num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": dict(model_type="qwen3", num_key_value_heads=2, head_dim=128),  # its reader knows no other
}


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, words))}\n{done.stderr}")


def save_model(folder, settings):
    settings = dict(settings)
    config = transformers.AutoConfig.for_model(
        settings.pop("model_type"), vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.2 if parameter.dim() == 1 else 0, 0.3)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()


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


def logits(model):
    torch.manual_seed(2)
    tokens = torch.randint(3, VOCAB, (1, 40))
    with torch.no_grad():
        return model(tokens).logits.float()


def same(what, found, expected, limit=1e-4):
    worst = (found - expected).abs().max().item()
    print(f"{'ok' if worst <= limit else 'FAILED'}  {what}: largest difference of logits {worst:.2e}")
    if worst > limit:
        sys.exit(1)


def check_values(path, model, heads):
    permuted = gguf.GGUFReader(path).get_field("general.architecture").contents() == "llama"
    mine = {t.name: t for t in gguf.GGUFReader(path).tensors}
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
    state = model.state_dict()
    for layer in range(2):
        for site, name in names.items():
            expected = state[f"model.layers.{layer}.self_attn.{site}_proj.weight"].numpy()
            if permuted and site in "qk":
                count = heads[0] if site == "q" else heads[1]
                rows, cols = expected.shape
                expected = expected.reshape(count, 2, rows // count // 2, cols).swapaxes(1, 2).reshape(rows, cols)
            tensor = mine[f"blk.{layer}.{name}.weight"]
            found = gguf.dequantize(tensor.data, tensor.tensor_type)
            if not np.array_equal(found.reshape(expected.shape), expected):
                sys.exit(f"FAILED: {path}: {tensor.name}")
    print(f"ok  {path.name}: gguf reads the folder's values")


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
    for name, settings in FAMILIES.items():
        folder, file = work / name, work / f"{name}.gguf"
        model = save_model(folder, settings)
        run(bakestone, "export", folder, file)
        check_values(file, model, (4, 2))
        try:
            again = transformers.AutoModelForCausalLM.from_pretrained(work, gguf_file=file.name).eval()
        except NotImplementedError as error:  # its reader takes any file with Mistral in its name for one
            print(f"--  {name}: transformers does not read GGUF files of it: {str(error)[:60]}")
            continue
        same(f"{name}: folder -> GGUF -> transformers", logits(again), logits(model))
        run(bakestone, "export", file, work / f"{name}-again")
        again = transformers.AutoModelForCausalLM.from_pretrained(work / f"{name}-again").eval()
        same(f"{name}: folder -> GGUF -> folder", logits(again), logits(model))
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
