#!/usr/bin/env python3
"""Adapters that bakestone trains on a family, run by PEFT: check_family_adapters.py BAKESTONE ADAPTER_LOGITS TOKENIZER_FOLDER [TYPE...]

For each type a small random model of `transformers` is written as a folder, with the tokenizer of TOKENIZER_FOLDER;
`bakestone train` trains pairs on some text for a few steps. PEFT must load what it exported, tensor by tensor, and
its logits over the model in float32 must be bakestone's at Precision::kExact within 1e-3 (tests/adapter_logits), of the
PEFT folder and of the GGUF adapter. tests/long/test_peft.sh runs it.

Versions: Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, safetensors 0.8.0.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers

import make_logits_goldens as goldens
from check_peft_logits import check_all_loaded

SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0)
LINEAR = dict(head_dim=16, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
              linear_conv_kernel_dim=4, layer_types=["linear_attention", "full_attention"] * 2)
SHARED = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_shared_experts=1, n_group=2, topk_group=1,
              first_k_dense_replace=1)
FAMILIES = {
    "qwen3_5_text": LINEAR,
    "lfm2": dict(layer_types=["conv", "full_attention"] * 2, conv_L_cache=3, block_auto_adjust_ff_dim=False),
    "starcoder2": dict(use_bias=True),
    "gemma2": dict(head_dim=16, layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=64),
    "gemma4_text": dict(head_dim=16, global_head_dim=32, num_hidden_layers=6, num_kv_shared_layers=2, use_double_wide_mlp=True,
                        hidden_size_per_layer_input=16, layer_types=["sliding_attention", "full_attention"] * 3,
                        sliding_window=64),
    "phi3": dict(original_max_position_embeddings=512),
    "glm4_moe": SHARED | dict(head_dim=16, use_qk_norm=True),
    "gpt_oss": dict(head_dim=16, num_local_experts=4, num_experts_per_tok=2, intermediate_size=64, sliding_window=64),
    "deepseek_v3": SHARED | dict(num_key_value_heads=4, kv_lora_rank=32, q_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16,
                                 v_head_dim=16),
}
# PEFT makes of targets gate_proj, up_proj and down_proj a mixture's stacked experts, and leaves out those of its layers without.
MIXTURES = {"glm4_moe": ["self_attn.*", "mlp.experts.*"], "deepseek_v3": ["self_attn.o_proj", "mlp.experts.*"]}
RECIPE = """name = "trial"
base = "{base}"
[[data]]
name = "text"
path = "text.txt"
licence = "CC0-1.0"
[adapter]
rank = 4
targets = {targets}
[[stage]]
name = "read"
method = "pretrain"
data = ["text"]
epochs = 3
batch = 2
sequence_length = 128
learning_rate = 1e-2
"""


def make_model(kind, settings, tokenizer, folder):
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = transformers.AutoConfig.for_model(kind, **(SMALL | settings | dict(vocab_size=vocabulary, tie_word_embeddings=True)))
    if kind == "gemma4_text":
        config.vocab_size_per_layer_input = vocabulary
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() >= 2:
                tensor.copy_((tensor * 2).bfloat16())
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)


class Reference:
    def __init__(self, model, digest):
        self.model, self.sha256 = model, lambda: digest

    def logits(self, tokens):
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def check(bakestone, adapter_logits, tokenizer, kind, work):
    base = work / "base"
    make_model(kind, FAMILIES[kind], tokenizer, base)
    text = (pathlib.Path(__file__).resolve().parent.parent / "examples/handbook/handbook.md").read_text()
    (work / "text.txt").write_text(text)
    (work / "recipe.toml").write_text(RECIPE.format(base=base, targets=json.dumps(MIXTURES.get(kind, ["all"]))))
    subprocess.run([bakestone, "train", work / "recipe.toml", "--output", work / "out"], check=True, stdout=subprocess.DEVNULL)
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(plain, work / "out" / "adapter").eval()
    # Experts are stacked as they are loaded: only the logits tell.
    count = "stacked" if kind in MIXTURES else check_all_loaded(model, work / "out" / "adapter")
    ids = transformers.AutoTokenizer.from_pretrained(base)(text)["input_ids"][:200]
    digest = bytes.fromhex(subprocess.run([adapter_logits, "--hash", base], check=True, capture_output=True, text=True).stdout.strip())
    goldens.write_logits(Reference(model, digest), [ids], work / "peft.logits")
    for adapter in ("adapter", "adapter.gguf"):
        out = subprocess.run([adapter_logits, base, work / "out" / adapter, work / "peft.logits"], capture_output=True, text=True)
        if out.returncode != 0:
            sys.exit(f"{kind}, {adapter}: {out.stdout}{out.stderr}")
        found = json.loads(out.stdout)
        print(f"{kind}, {adapter}: {count} tensors in PEFT, logits off by {found['exact']['max_error']:.1e}, the base's by "
              f"{found['without_adapter']['max_error']:.1f}")


def main():
    bakestone, adapter_logits, tokenizer = sys.argv[1:4]
    for kind in sys.argv[4:] or FAMILIES:
        with tempfile.TemporaryDirectory() as work:
            check(bakestone, adapter_logits, pathlib.Path(tokenizer), kind, pathlib.Path(work))


if __name__ == "__main__":
    main()
