#!/usr/bin/env python3
"""Runs an exported adapter in PEFT and writes its logits, for bakestone to be compared with.

  check_peft_logits.py MODEL.gguf PEFT_FOLDER OUT.logits [TEXT.txt ...]

The base is a float32 Llama of `transformers` whose weights PyPI's `gguf` dequantizes (rows of q and k
back in Hugging Face's order); the folder is loaded by `peft` as any user would load it. Every tensor
of the folder must be found again in what `peft` loaded, so none was silently left out. The logits
(format: make_logits_goldens.py; default texts: tests/data/model/texts) are compared by

  build/release/tests/adapter_logits MODEL.gguf PEFT_FOLDER|ADAPTER.gguf OUT.logits

at Precision::kExact, where no logit may differ by 1e-3. tests/long/test_peft.sh does all of it.

Versions: Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2, gguf 0.19.0, safetensors 0.8.0.
"""
import argparse
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # the base is made here: nothing is looked up by its name

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import make_logits_goldens as goldens

SITES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}
TOP_LEVEL = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
             "output.weight": "lm_head.weight"}


def hugging_face_rows(weight, heads):
    """GGUF keeps the two halves of a rotary pair side by side, Hugging Face half a head apart."""
    rows = weight.shape[0] // heads
    return weight.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def state_dict(file):
    state = {}
    for name, weight in file.w.items():
        if name in TOP_LEVEL:
            state[TOP_LEVEL[name]] = weight
            continue
        block, layer, site, kind = name.split(".")
        if block != "blk" or kind != "weight" or site not in SITES:
            sys.exit(f"{file.path}: tensor '{name}': not one of a Llama")
        if site in ("attn_q", "attn_k"):
            weight = hugging_face_rows(weight, file.heads if site == "attn_q" else file.kv_heads)
        state[f"model.layers.{layer}.{SITES[site]}.weight"] = weight
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    return {name: torch.from_numpy(np.ascontiguousarray(weight)) for name, weight in state.items()}


def llama(file):
    if file.arch != "llama" or file.linear != 1.0:
        sys.exit(f"{file.path}: expected architecture llama without rope scaling, found {file.arch}, "
                 f"factor {file.linear}")
    config = LlamaConfig(
        vocab_size=file.w["token_embd.weight"].shape[0], hidden_size=file.w["token_embd.weight"].shape[1],
        intermediate_size=file.w["blk.0.ffn_up.weight"].shape[0], num_hidden_layers=file.layers,
        num_attention_heads=file.heads, num_key_value_heads=file.kv_heads, head_dim=file.head_dim,
        rms_norm_eps=float(file.eps), max_position_embeddings=file.meta["llama.context_length"],
        rope_parameters={"rope_type": "default", "rope_theta": float(file.theta)},
        tie_word_embeddings="output.weight" not in file.w, attn_implementation="eager")
    model = LlamaForCausalLM(config).to(torch.float32)
    model.load_state_dict(state_dict(file), strict=True)
    return model.eval()


def check_all_loaded(model, folder):
    given = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    if set(given) != set(loaded):
        sys.exit(f"{folder}: tensors of one side only: {sorted(set(given) ^ set(loaded))[:4]} ...")
    for name, tensor in given.items():
        if not torch.equal(tensor.float(), loaded[name].float()):
            sys.exit(f"{folder}: tensor '{name}': peft holds other values")
    return len(given)


class PeftReference:
    """What write_logits wants of a model."""

    def __init__(self, model, file):
        self.model, self.sha256 = model, file.sha256

    def logits(self, tokens):
        with torch.inference_mode():
            return self.model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("adapter", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path, nargs="*")
    parser.add_argument("--tokens", type=int, default=4096, help="at most so many of each text")
    args = parser.parse_args()
    file = goldens.Model(args.model)
    model = PeftModel.from_pretrained(llama(file), str(args.adapter)).eval()
    count = check_all_loaded(model, args.adapter)
    config = model.peft_config["default"]
    print(f"{args.adapter}: {count} tensors in PEFT, rank {config.r}, alpha {config.lora_alpha}, "
          f"rsLoRA {config.use_rslora}")
    tokenizer = file.tokenizer()
    texts = args.texts or sorted((goldens.DATA / "texts").glob("*.txt"))
    goldens.write_logits(PeftReference(model, file),
                         [tokenizer.encode(t.read_text()).ids[:args.tokens] for t in texts], args.out)


if __name__ == "__main__":
    main()
