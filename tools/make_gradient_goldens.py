#!/usr/bin/env python3
"""Makes tests/data/train/gradients.safetensors: losses and LoRA gradients of a tiny random Llama.

transformers' LlamaForCausalLM with peft's LoRA on every linear layer, in float64, one document at a
time; weights and pairs are bf16 values, so that both sides start from the same numbers. Two losses
over the same rows: -log p(target) times the row's weight, and KL(base || model) times the weight.

  w.LAYER.SITE, norm.*, embedding, head       the model
  a.LAYER.SITE [r, in], b.LAYER.SITE [out, r]  the pairs; scale = alpha / r is in the metadata
  tokens, positions, begins, loss_rows, targets, weights
  nll.loss, kl.loss, {nll,kl}.{a,b}.LAYER.SITE  gradients of the weighted sums

Needs torch, peft, transformers, safetensors. Run: python3 tools/make_gradient_goldens.py.
Seed and versions are in the file's metadata.
"""
import importlib.metadata
import pathlib

import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

SEED = 20240919
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "train"
SITES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTHS = [21, 1, 37]
RANK, ALPHA = 3, 4


def rounded(shape, scale):
    return (torch.randn(shape) * scale).to(torch.bfloat16).to(torch.float64)


def make_model():
    config = transformers.LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=48, num_hidden_layers=2, vocab_size=61, rope_theta=10000.0,
        rms_norm_eps=1e-5, tie_word_embeddings=False, attn_implementation="eager")
    model = transformers.LlamaForCausalLM(config).to(torch.float64)
    lora = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=SITES, lora_dropout=0.0)
    model = peft.get_peft_model(model, lora).to(torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + rounded(parameter.shape, 0.2))
            elif "lora_B" in name:
                parameter.copy_(rounded(parameter.shape, 0.3))
            else:
                parameter.copy_(rounded(parameter.shape, parameter.shape[-1] ** -0.5))
            if "embed" in name:
                parameter.copy_(rounded(parameter.shape, 0.5))
    return model


def losses(model, tokens, rows, targets, weights):
    logits = model(input_ids=tokens[None]).logits[0][rows]
    with torch.no_grad(), model.disable_adapter():
        base = F.log_softmax(model(input_ids=tokens[None]).logits[0][rows], -1)
    log_p = F.log_softmax(logits, -1)
    nll = -(log_p.gather(1, targets[:, None])[:, 0] * weights).sum()
    kl = ((base.exp() * (base - log_p)).sum(-1) * weights).sum()
    return nll, kl


def main():
    torch.manual_seed(SEED)
    model = make_model()
    total = sum(LENGTHS)
    tokens = torch.randint(0, 61, (total,))
    begins = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
    loss_rows = torch.tensor([row for row in range(total) if row % 3 != 1 or row > 40])
    targets = torch.randint(0, 61, (len(loss_rows),))
    weights = (torch.rand(len(loss_rows)) + 0.5).to(torch.float32)

    out = {"tokens": tokens.int(), "loss_rows": loss_rows.int(), "targets": targets.int(),
           "weights": weights, "begins": torch.tensor(begins).int(),
           "positions": torch.cat([torch.arange(n) for n in LENGTHS]).int()}
    nll, kl = 0, 0
    for begin, length in zip(begins, LENGTHS):
        mine = (loss_rows >= begin) & (loss_rows < begin + length)
        a, b = losses(model, tokens[begin:begin + length], loss_rows[mine] - begin, targets[mine],
                      weights[mine].double())
        nll, kl = nll + a, kl + b

    base = model.base_model.model.model
    bf16 = lambda x: x.detach().to(torch.bfloat16).contiguous()
    out["embedding"] = bf16(base.embed_tokens.weight)
    out["head"] = bf16(model.base_model.model.lm_head.weight)
    out["norm.final"] = base.norm.weight.detach().float()
    pairs = []
    for i, layer in enumerate(base.layers):
        out[f"norm.{i}.attention"] = layer.input_layernorm.weight.detach().float()
        out[f"norm.{i}.mlp"] = layer.post_attention_layernorm.weight.detach().float()
        for site in SITES:
            linear = getattr(layer.self_attn if hasattr(layer.self_attn, site) else layer.mlp, site)
            a, b = linear.lora_A["default"].weight, linear.lora_B["default"].weight
            out[f"w.{i}.{site}"] = bf16(linear.base_layer.weight)
            out[f"a.{i}.{site}"], out[f"b.{i}.{site}"] = bf16(a), bf16(b)
            pairs += [(f"a.{i}.{site}", a), (f"b.{i}.{site}", b)]
    for name, loss in (("nll", nll), ("kl", kl)):
        out[f"{name}.loss"] = loss.detach()[None].double()
        gradients = torch.autograd.grad(loss, [p for _, p in pairs], retain_graph=True)
        for (key, _), gradient in zip(pairs, gradients):
            out[f"{name}.{key}"] = gradient.float().contiguous()
        print(name, loss.item())
    metadata = {"seed": str(SEED), "scale": repr(ALPHA / RANK)}
    for package in ("torch", "transformers", "peft"):
        metadata[package] = importlib.metadata.version(package)
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(out, OUT / "gradients.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
