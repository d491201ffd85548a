#!/usr/bin/env python3
"""Makes tests/data/peft/experts_TYPE/: adapters of the mixtures in tests/data/families/, as PyPI's `peft` saves them for
`transformers` 5, where experts are stacked in two parameters, and the logits of the adapted model in float32.

  adapter_config.json, adapter_model.safetensors   random pairs on q_proj and on all experts
  golden.safetensors                               tokens i32 [T], logits f32 [T, vocabulary]

mixtral has both parameters, of different ranks; qwen3_moe gate_up_proj alone.
Run: python3 tools/make_expert_adapter_goldens.py. Versions: VERSIONS in each folder.
"""
import json
import pathlib
import tempfile

import peft
import safetensors.torch
import torch
import transformers

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
LENGTH = 40
ADAPTERS = {
    "mixtral": dict(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
                    rank_pattern={r".*\.gate_up_proj": 6}, alpha_pattern={r".*\.gate_up_proj": 3}),
    "qwen3_moe": dict(target_parameters=["mlp.experts.gate_up_proj"], use_rslora=True),
}


def main():
    for kind, settings in ADAPTERS.items():
        model = transformers.AutoModelForCausalLM.from_pretrained(DATA / "families" / kind, dtype=torch.float32,
                                                                  attn_implementation="eager", experts_implementation="eager")
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], **settings))
        torch.manual_seed(17)
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if ".lora_" in name:
                    tensor.copy_((0.2 * torch.randn(tensor.shape)).bfloat16())
        tokens = torch.randint(3, model.config.vocab_size, (1, LENGTH))
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits[0]
            with model.disable_adapter():
                base = model(input_ids=tokens, use_cache=False).logits[0]
        folder = DATA / "peft" / f"experts_{kind}"
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as saved:
            model.save_pretrained(saved)
            config = json.loads((pathlib.Path(saved) / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = f"tiny/{kind}"
            (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
            (folder / "adapter_model.safetensors").write_bytes((pathlib.Path(saved) / "adapter_model.safetensors").read_bytes())
        (folder / "VERSIONS").write_text(f"peft {peft.__version__}, torch {torch.__version__.split('+')[0]}, "
                                         f"transformers {transformers.__version__}, safetensors {safetensors.__version__}\n")
        safetensors.torch.save_file({"tokens": tokens[0].int(), "logits": logits.contiguous()}, folder / "golden.safetensors")
        print(f"{kind}: the adapter moves logits by {(logits - base).abs().max():.2f}")


if __name__ == "__main__":
    main()
