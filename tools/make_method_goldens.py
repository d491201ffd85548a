#!/usr/bin/env python3
"""Makes tests/data/train/methods.safetensors: gradients of every way of training, and whole runs.

transformers' Qwen2ForCausalLM (biases on q, k and v, a tied head), tiny and random, with peft where there
are pairs, in float64; all values are bf16 values, so that both sides start from the same numbers.

  w.TENSOR                         the model, Hugging Face's names without "model."
  p.TENSOR                         the pairs and magnitudes of DoRA; scale = alpha / r is in the metadata
  tokens, positions, begins, loss_rows, targets, weights   one packed batch, as TrainBatch has it
  full.loss, full.TENSOR           -log p(target) times the row's weight, summed; every tensor's gradient
  dora.loss, dora.TENSOR           the same with DoRA on every linear
  dpo.KIND.loss, dpo.KIND.TENSOR   DPO's loss of the batch's documents (0 chosen, 1 rejected), with LoRA: KIND
                                   is sum or mean (of a document's log-probabilities); dpo.reference [2]
  run.METHOD.losses [10], run.METHOD.TENSOR   ten steps of torch.optim.AdamW with clipping, METHOD is lora,
                                   dora or full: each step's loss (mean of the rows, before the step) and the
                                   values at the end; run.targets [10, rows] are each step's targets

Needs torch, peft, transformers, safetensors. Run: python3 tools/make_method_goldens.py.
Seed and versions are in the file's metadata.
"""
import importlib.metadata
import pathlib

import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

SEED = 20240920
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "train"
SITES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTHS = [23, 19]
VOCAB = 61
RANK, ALPHA, BETA = 3, 4, 0.3
STEPS, RATE, CLIP, BETAS, DECAY = 10, 4e-3, 1.0, (0.9, 0.99), 0.1


def rounded(shape, scale):
    return (torch.randn(shape) * scale).to(torch.bfloat16).to(torch.float64)


def make_model():
    config = transformers.Qwen2Config(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=48, num_hidden_layers=2, vocab_size=VOCAB, rope_theta=10000.0,
        rms_norm_eps=1e-5, tie_word_embeddings=True, attn_implementation="eager")
    model = transformers.Qwen2ForCausalLM(config).to(torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + rounded(parameter.shape, 0.2))
            elif "bias" in name:
                parameter.copy_(rounded(parameter.shape, 0.3))
            elif "embed" in name:
                parameter.copy_(rounded(parameter.shape, 0.5))
            else:
                parameter.copy_(rounded(parameter.shape, parameter.shape[-1] ** -0.5))
    return model


def add_pairs(model, dora, values):
    """Pairs with `values` by short name, or random ones that go there."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=SITES, lora_dropout=0.0,
                             use_dora=dora)
    model = peft.get_peft_model(model, config).to(torch.float64)
    with torch.no_grad():
        for name, parameter in trained(model).items():
            if name not in values:
                if "magnitude" in name:  # away from the norms, so that the output is scaled
                    values[name] = (parameter.detach() * (1 + 0.2 * torch.randn(parameter.shape))).to(
                        torch.bfloat16).to(torch.float64)
                else:
                    values[name] = rounded(parameter.shape, 0.3 if "lora_B" in name else 0.2)
            parameter.copy_(values[name])
    return model


def short(name):
    for part in ("base_model.model.", "model.", ".default", ".base_layer"):
        name = name.replace(part, "")
    if "lora_magnitude_vector" in name or "lora_A" in name or "lora_B" in name:
        name = name.removesuffix(".weight")
    return name


def trained(model):
    return {short(name): p for name, p in model.named_parameters() if p.requires_grad}


class Batch:
    def __init__(self):
        total = sum(LENGTHS)
        self.tokens = torch.randint(0, VOCAB, (total,))
        self.begins = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
        self.rows = torch.tensor([row for row in range(total) if row % 4 != 1 and row + 1 != total])
        self.targets = torch.randint(0, VOCAB, (len(self.rows),))
        self.weights = (torch.rand(len(self.rows)) + 0.5).to(torch.float32)

    def log_probs(self, model, targets=None):
        """log p of every loss row's target, one document at a time."""
        targets = self.targets if targets is None else targets
        parts = []
        for begin, length in zip(self.begins, LENGTHS):
            mine = (self.rows >= begin) & (self.rows < begin + length)
            logits = model(input_ids=self.tokens[None, begin:begin + length]).logits[0]
            log_p = F.log_softmax(logits[self.rows[mine] - begin], -1)
            parts.append(log_p.gather(1, targets[mine][:, None])[:, 0])
        return parts

    def loss(self, model):
        return -(torch.cat(self.log_probs(model)) * self.weights.double()).sum()


def add_gradients(out, prefix, loss, model):
    tensors = trained(model)
    out[f"{prefix}.loss"] = loss.detach()[None].double()
    for name, gradient in zip(tensors, torch.autograd.grad(loss, list(tensors.values()))):
        out[f"{prefix}.{name}"] = gradient.float().contiguous()
    print(prefix, loss.item())


def dpo_loss(parts, reference, mean):
    chosen, rejected = [part.mean() if mean else part.sum() for part in parts]
    return -F.logsigmoid(BETA * ((chosen - reference[0]) - (rejected - reference[1])))


def add_run(out, name, model, batch, targets):
    tensors = trained(model)
    decays = [p for p in tensors.values() if p.dim() > 1]
    others = [p for p in tensors.values() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": DECAY},
                                   {"params": others, "weight_decay": 0.0}], lr=RATE, betas=BETAS, eps=1e-8)
    losses = []
    for step in range(STEPS):
        loss = -torch.cat(batch.log_probs(model, targets[step])).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(tensors.values()), CLIP)
        optimizer.step()
        losses.append(loss.item())
    out[f"run.{name}.losses"] = torch.tensor(losses, dtype=torch.float64)
    for key, value in tensors.items():
        out[f"run.{name}.{key}"] = value.detach().float().contiguous()
    print("run", name, [round(x, 3) for x in losses])


def main():
    torch.manual_seed(SEED)
    state = make_model().state_dict()
    def fresh():
        return fresh_model(state)

    batch = Batch()
    out = {"tokens": batch.tokens.int(), "loss_rows": batch.rows.int(), "targets": batch.targets.int(),
           "weights": batch.weights, "begins": torch.tensor(batch.begins).int(),
           "positions": torch.cat([torch.arange(n) for n in LENGTHS]).int()}
    for name, value in state.items():
        if name != "lm_head.weight":
            out["w." + short(name)] = value.to(torch.bfloat16).contiguous()
    full = fresh()
    add_gradients(out, "full", batch.loss(full), full)
    pairs = {}
    dora = add_pairs(fresh(), True, pairs)
    add_gradients(out, "dora", batch.loss(dora), dora)
    for name, value in pairs.items():
        out["p." + name] = value.to(torch.bfloat16).contiguous()
    reference = torch.tensor([-80.25, -71.5], dtype=torch.float64)
    out["dpo.reference"] = reference
    for kind in ("sum", "mean"):
        lora = add_pairs(fresh(), False, pairs)
        scaled = reference / (torch.tensor([len(p) for p in batch.log_probs(lora)]) if kind == "mean" else 1)
        add_gradients(out, f"dpo.{kind}", dpo_loss(batch.log_probs(lora), scaled, kind == "mean"), lora)
    # Targets that can be learned: the next token plus one, and some noise.
    targets = (batch.tokens[batch.rows + 1] + 1) % VOCAB
    targets = torch.stack([torch.where(torch.rand(len(targets)) < 0.2,
                                       torch.randint(0, VOCAB, targets.shape), targets)
                           for _ in range(STEPS)])
    out["run.targets"] = targets.int()
    add_run(out, "full", fresh(), batch, targets)
    add_run(out, "lora", add_pairs(fresh(), False, pairs), batch, targets)
    add_run(out, "dora", add_pairs(fresh(), True, pairs), batch, targets)
    metadata = {"seed": str(SEED), "scale": repr(ALPHA / RANK), "beta": repr(BETA), "rate": repr(RATE),
                "clip": repr(CLIP), "beta1": repr(BETAS[0]), "beta2": repr(BETAS[1]), "decay": repr(DECAY)}
    for package in ("torch", "transformers", "peft"):
        metadata[package] = importlib.metadata.version(package)
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(out, OUT / "methods.safetensors", metadata=metadata)


def fresh_model(state):
    model = make_model()
    model.load_state_dict(state)
    return model


if __name__ == "__main__":
    main()
