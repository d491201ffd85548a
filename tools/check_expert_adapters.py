#!/usr/bin/env python3
"""Pairs on the experts of mixtures, from PEFT through bakestone and back: check_expert_adapters.py BAKESTONE.

For each mixture of tests/data/families/ `peft` makes an adapter on all experts as it does for `transformers` 5 (stacked);
`bakestone export` writes it as GGUF, and that as a PEFT folder again (a module for each expert), which `peft` loads and
stacks itself. The logits must be those of the first within 1e-4. tests/long/test_peft.sh runs it.

Versions: Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, safetensors 0.8.0.
"""
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
import transformers

FAMILIES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "families"


def base_of(kind):
    return transformers.AutoModelForCausalLM.from_pretrained(FAMILIES / kind, dtype=torch.float32, attn_implementation="eager",
                                                             experts_implementation="eager")


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits[0]


def check(bakestone, kind, folder):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"],
                             target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    model = peft.get_peft_model(base_of(kind), config)
    torch.manual_seed(17)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if ".lora_" in name:
                tensor.copy_((0.2 * torch.randn(tensor.shape)).bfloat16())
    tokens = torch.randint(3, model.config.vocab_size, (1, 40))
    expected, plain = logits_of(model, tokens), logits_of(base_of(kind), tokens)
    model.save_pretrained(folder / "stacked")
    base = FAMILIES / kind / "model.gguf"
    for source, target in (("stacked", "adapter.gguf"), ("adapter.gguf", "back")):
        subprocess.run([bakestone, "export", folder / source, folder / target, "--base", base], check=True, stdout=subprocess.DEVNULL)
    found = logits_of(peft.PeftModel.from_pretrained(base_of(kind), folder / "back"), tokens)
    error, effect = (found - expected).abs().max().item(), (expected - plain).abs().max().item()
    print(f"{kind}: off by {error:.1e}, the adapter moves logits by {effect:.1f}")
    if not error < 1e-4 or not effect > 1e-2:
        sys.exit(f"{kind}: expected PEFT to give the same logits with what came back, found {error}")


def main():
    for kind in ("mixtral", "qwen3_moe"):
        with tempfile.TemporaryDirectory() as folder:
            check(sys.argv[1], kind, pathlib.Path(folder))


if __name__ == "__main__":
    main()
