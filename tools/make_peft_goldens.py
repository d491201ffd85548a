#!/usr/bin/env python3
"""Makes tests/data/peft/: adapters of a tiny random Llama, written by the Python package `peft`.

  plain/     r 4, alpha 6, every linear layer of attention and MLP
  patterns/  rsLoRA, rank_pattern and alpha_pattern, the embedding and lm_head too; bfloat16 tensors
  dora/      DoRA, r 2

Each folder also holds delta.safetensors: for each adapted module what peft adds to its weight
(get_delta_weight: the scale times B A). Needs torch, peft, transformers, safetensors. Run:
python3 tools/make_peft_goldens.py. Seed and versions are written to tests/data/peft/VERSIONS.
"""
import importlib.metadata
import pathlib

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

SEED = 20240918
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "peft"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tiny_llama():
    config = transformers.LlamaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
        num_hidden_layers=2, vocab_size=40, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config)


def make(name, config, dtype=None):
    torch.manual_seed(SEED)
    model = peft.get_peft_model(tiny_llama(), config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key and "magnitude" not in key:
                value = torch.randn_like(parameter) * 0.3
                parameter.copy_(value.to(dtype).to(parameter.dtype) if dtype else value)
    folder = OUT / name
    model.save_pretrained(folder)
    deltas = {}
    for key, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            deltas[key.removeprefix("base_model.model.")] = delta.contiguous()
    save_file(deltas, folder / "delta.safetensors")
    (folder / "README.md").unlink(missing_ok=True)
    if dtype:
        path = folder / "adapter_model.safetensors"
        tensors = {key: value.to(dtype) for key, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    make("plain", peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR, task_type="CAUSAL_LM"))
    make("patterns", peft.LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, target_modules=[*LINEAR, "embed_tokens", "lm_head"],
        rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3},
        alpha_pattern={"layers.0.mlp.up_proj": 5, "k_proj": 1.5}, task_type="CAUSAL_LM"),
        torch.bfloat16)
    make("dora", peft.LoraConfig(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "down_proj"],
                                 task_type="CAUSAL_LM"))
    names = ("peft", "safetensors", "torch", "transformers")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    (OUT / "VERSIONS").write_text(f"tools/make_peft_goldens.py\nseed {SEED}\n" + "\n".join(versions) + "\n")


if __name__ == "__main__":
    main()
