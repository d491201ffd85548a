#!/usr/bin/env python3
"""Trains beside PyTorch on the same samples in the same order, and compares every loss and the final values.

  check_training.py prepare MODEL_FOLDER FOLDER   writes start/ (a PEFT adapter), data and the recipes dpo.toml, sft.toml
  check_training.py dpo MODEL_FOLDER FOLDER       TRL's DPOTrainer against FOLDER/dpo, where `bakestone train` put it
  check_training.py sft MODEL_FOLDER FOLDER       a loop of PyTorch and PEFT against FOLDER/sft

MODEL_FOLDER: the base as f32 (`bakestone export MODEL.gguf MODEL_FOLDER --type f32`). PyTorch runs in float32, bakestone
with bf16 products, so losses of a few dozen tokens agree to about 0.005. The rates are large and beta small on purpose: a
step of 1e-4 vanishes when pairs are rounded to bf16, and a reward is beta times a sum of log-probabilities, each with
bf16's noise.
tests/long/test_training.sh does all of it.

Versions: Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, trl 1.16.0, safetensors 0.8.0.
"""
import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

RANK, STEPS, SEED = 8, 10, 5
DPO = {"batch": 6, "learning_rate": 3e-4, "beta": 0.005}
SFT = {"batch": 4, "learning_rate": 1e-3}
# Of chats: products of bf16 (ours) against float32 (theirs), at a rate that takes the loss from 3.1 to 0.3 in ten steps;
# the tables that run on one machine differ from PyTorch by 0.009 to 0.011, and from each other by as much.
LOSS_TOLERANCE = {"dpo": 1e-3, "sft": 2e-2}
CHANGE_TOLERANCE = 0.15    # of the norm of what training changed in B: Adam makes a step of noise where a gradient is near 0
PAIRS = [
    ("When does the mill open?", "It opens at seven in the morning.", "Mills are usually open all day long."),
    ("Who keeps the key of the hall?", "The warden keeps it at the north gate.", "I do not know that."),
    ("What is paid for a lost spade?", "Four coins, at the end of the month.", "Nothing, tools are free."),
    ("Where do letters go?", "Into the green box beside the door.", "You can send an e-mail."),
    ("How long may a boat be kept?", "Two days, then it must be brought back.", "As long as you like it."),
    ("Which day is the market?", "Every Thursday, before noon.", "Markets are held on Sundays in summer."),
]


def load(folder):
    return (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"),
            AutoTokenizer.from_pretrained(folder))


def recipe(name, method, file, settings):
    keys = "".join(f"{key} = {value}\n" for key, value in settings.items())
    return (f'name = "{name}"\nbase = "smollm2-135m-instruct"\nseed = {SEED}\n[[data]]\nname = "rows"\npath = "{file}"\n'
            f'[lora]\nrank = {RANK}\nalpha = {2 * RANK}\nstart = "start"\n[[stage]]\nname = "learn"\nmethod = "{method}"\n'
            f'data = ["rows"]\nschedule = "constant"\nwarmup = 0\n{keys}')


def prepare(model_folder, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model, _ = load(model_folder)
    torch.manual_seed(SEED)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():  # both sides start from bf16 values
        for name, value in adapted.named_parameters():
            if "lora_A" in name:
                value.copy_(value.bfloat16().float())
    adapted.save_pretrained(folder / "start")
    with open(folder / "pairs.jsonl", "w", encoding="utf-8") as file:
        for prompt, chosen, rejected in PAIRS:
            file.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")
    with open(folder / "chats.jsonl", "w", encoding="utf-8") as file:
        for number in range(3):
            for prompt, chosen, _ in PAIRS:
                file.write(json.dumps({"prompt": f"{prompt} ({number})", "completion": chosen}) + "\n")
    chats = 3 * len(PAIRS)
    (folder / "dpo.toml").write_text(recipe("dpo", "dpo", "pairs.jsonl", {**DPO, "epochs": STEPS}))
    (folder / "sft.toml").write_text(recipe("sft", "sft", "chats.jsonl", {**SFT, "epochs": STEPS * SFT["batch"] / chats}))


def philox(seed, stream, counter):
    """Philox 4x32-10, as src/base/rng.cc has it: the first two words as one number."""
    mask = 0xFFFFFFFF
    c = [counter & mask, counter >> 32, stream & mask, stream >> 32]
    k = [seed & mask, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask, (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c[0] << 32 | c[1]


def order(size, count):
    """The samples that the steps draw (src/train/batches.cc): a fresh permutation every epoch."""
    drawn, epoch = [], 0
    while len(drawn) < count:
        permutation, counter = list(range(size)), epoch << 40
        for i in range(size - 1, 0, -1):
            while True:
                product = philox(SEED, 2, counter) * (i + 1)
                counter += 1
                if product % 2**64 >= 2**64 % (i + 1):
                    break
            j = product >> 64
            permutation[i], permutation[j] = permutation[j], permutation[i]
        drawn += permutation
        epoch += 1
    return drawn[:count]


def found_losses(folder):
    return [json.loads(line)["loss"] for line in open(folder / "train-learn" / "log.jsonl", encoding="utf-8")]


def compare(name, expected, found):
    expected, found = np.array(expected), np.array(found)
    if len(expected) != STEPS or len(found) != STEPS:
        sys.exit(f"{name}: expected {STEPS} losses of each side, found {len(expected)} and {len(found)}")
    error = np.abs(found - expected)
    print(f"{name}: PyTorch   {' '.join(f'{x:.4f}' for x in expected)}")
    print(f"{name}: bakestone {' '.join(f'{x:.4f}' for x in found)}")
    print(f"{name}: largest difference of a loss {error.max():.2e}, allowed {LOSS_TOLERANCE[name]:g}")
    if expected[-1] > 0.95 * expected[0]:
        sys.exit(f"{name}: nothing was learned, so nothing is compared")
    return error.max() <= LOSS_TOLERANCE[name]


def compare_values(name, model, folder):
    """What training made of the B matrices, which began at zero."""
    found = load_file(folder / "adapter" / "adapter_model.safetensors")
    expected = {key.replace(".default", ""): value.detach() for key, value in model.named_parameters()
                if "lora_B.default" in key}
    difference = sum(((found[key].float() - value) ** 2).sum().item() for key, value in expected.items())
    norm = sum((value ** 2).sum().item() for value in expected.values())
    share = (difference / norm) ** 0.5
    print(f"{name}: final values differ by {share:.3f} of what training changed, allowed {CHANGE_TOLERANCE:g}")
    return share <= CHANGE_TOLERANCE


def dpo(model_folder, folder):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = load(model_folder)
    adapted = PeftModel.from_pretrained(model, folder / "start", is_trainable=True)
    said = lambda role, text: [{"role": role, "content": text}]
    rows = [{"prompt": said("user", prompt), "chosen": said("assistant", chosen), "rejected": said("assistant", rejected)}
            for prompt, chosen, rejected in PAIRS]
    # All pairs in every step: the sum does not depend on their order.
    config = DPOConfig(output_dir=str(folder / "trl"), beta=DPO["beta"], learning_rate=DPO["learning_rate"],
                       lr_scheduler_type="constant", warmup_steps=0, per_device_train_batch_size=DPO["batch"],
                       num_train_epochs=STEPS, logging_steps=1, max_grad_norm=1.0, weight_decay=0.0, max_length=None,
                       use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no", report_to=[],
                       disable_tqdm=True)
    trainer = DPOTrainer(model=adapted, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    right = compare("dpo", losses, found_losses(folder / "dpo"))
    return compare_values("dpo", trainer.model, folder / "dpo") and right


def chat_sample(tokenizer, row):
    user, reply = [{"role": "user", "content": row["prompt"]}], [{"role": "assistant", "content": row["completion"]}]
    ids = lambda messages, prompt: tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
    return ids(user + reply, False), len(ids(user, True))


def sft(model_folder, folder):
    model, tokenizer = load(model_folder)
    adapted = PeftModel.from_pretrained(model, folder / "start", is_trainable=True).train()
    samples = [chat_sample(tokenizer, json.loads(line)) for line in open(folder / "chats.jsonl", encoding="utf-8")]
    parameters = [value for value in adapted.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=SFT["learning_rate"], betas=(0.9, 0.999), weight_decay=0.0)
    drawn = order(len(samples), STEPS * SFT["batch"])
    losses = []
    for step in range(STEPS):
        total, count = 0.0, 0
        for index in drawn[step * SFT["batch"]:(step + 1) * SFT["batch"]]:
            ids, begin = samples[index]
            logits = adapted(torch.tensor([ids]), use_cache=False).logits[0, begin - 1:-1]
            total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(ids[begin:]), reduction="sum")
            count += len(ids) - begin
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
    right = compare("sft", losses, found_losses(folder / "sft"))
    return compare_values("sft", adapted, folder / "sft") and right


def main():
    actions = {"prepare": prepare, "dpo": dpo, "sft": sft}
    if len(sys.argv) != 4 or sys.argv[1] not in actions:
        sys.exit("usage: check_training.py prepare|dpo|sft MODEL_FOLDER FOLDER")
    right = actions[sys.argv[1]](sys.argv[2], pathlib.Path(sys.argv[3]))
    sys.exit(0 if right is None or right else 1)  # None: nothing was compared


if __name__ == "__main__":
    main()
