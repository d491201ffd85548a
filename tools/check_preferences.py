#!/usr/bin/env python3
"""Direct preference optimization beside TRL on the same pairs in the same order, judged on pairs that neither has seen.

  check_preferences.py prepare MODEL_FOLDER HANDBOOK FOLDER   writes start/ (a PEFT adapter), pairs, recipe dpo.toml
  check_preferences.py compare MODEL_FOLDER FOLDER            trains with TRL, and judges its adapter and FOLDER/dpo/adapter

A pair is a question about the sample handbook, its answer, and the answer to another question: which of the two is right
depends on the question, so nothing general (length, tone) tells them apart. Held out are the handbook's other wordings.
Both adapters are judged by PyTorch in float32: a pair is right where the chosen answer's reward, beta times how much
likelier it became than at the start, is the larger one. tests/long/test_preferences.sh does all of it.

Versions: Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, trl 1.16.0.
"""
import json
import pathlib
import random
import sys

import check_training
from check_training import RANK, SEED, load, order

import torch
from peft import LoraConfig, PeftModel, get_peft_model

TRAIN_PAIRS, BATCH, EPOCHS = 320, 8, 1
RATE, BETA, WARMUP = 5e-4, 0.1, 0.1
KINDS = ("direct", "situational")


def read(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def pairs_of(rows, facts, rng):
    """Each question with its answer and another fact's."""
    pairs = []
    for row in rows:
        answer = next(fact["answer"] for fact in facts if fact["id"] == row["fact"])
        wrong = rng.choice([fact["answer"] for fact in facts if fact["id"] != row["fact"]])
        pairs.append({"prompt": row["messages"][0]["content"], "chosen": answer, "rejected": wrong})
    return pairs


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(model_folder, handbook, folder):
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    facts = read(handbook / "facts.jsonl")
    train = [row for row in read(handbook / "train.jsonl") if row["kind"] in KINDS]
    write(folder / "pairs.jsonl", pairs_of(rng.sample(train, TRAIN_PAIRS), facts, rng))
    heldout = [row for row in read(handbook / "heldout.jsonl") if row["kind"] in KINDS]
    write(folder / "heldout.jsonl", pairs_of(heldout, facts, rng))
    model, _ = load(model_folder)
    torch.manual_seed(SEED)
    adapted = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear",
                                               task_type="CAUSAL_LM"))
    with torch.no_grad():  # both sides start from bf16 values
        for name, value in adapted.named_parameters():
            if "lora_A" in name:
                value.copy_(value.bfloat16().float())
    adapted.save_pretrained(folder / "start")
    settings = {"batch": BATCH, "epochs": EPOCHS, "learning_rate": RATE, "beta": BETA, "warmup": WARMUP}
    text = check_training.recipe("dpo", "dpo", "pairs.jsonl", settings)
    (folder / "dpo.toml").write_text(text.replace('schedule = "constant"\nwarmup = 0\n', 'schedule = "linear"\n'))


def said(role, text):
    return [{"role": role, "content": text}]


def train_with_trl(model_folder, folder):
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    pairs = read(folder / "pairs.jsonl")
    rows = [{"prompt": said("user", pair["prompt"]), "chosen": said("assistant", pair["chosen"]),
             "rejected": said("assistant", pair["rejected"])}
            for pair in (pairs[i] for i in order(len(pairs), EPOCHS * len(pairs)))]
    model, tokenizer = load(model_folder)
    adapted = PeftModel.from_pretrained(model, folder / "start", is_trainable=True)
    steps = len(rows) // BATCH
    config = DPOConfig(output_dir=str(folder / "trl"), beta=BETA, learning_rate=RATE, lr_scheduler_type="linear",
                       warmup_steps=round(WARMUP * steps), per_device_train_batch_size=BATCH, num_train_epochs=1,
                       logging_steps=1, max_grad_norm=1.0, weight_decay=0.0, max_length=None, use_cpu=True, bf16=False,
                       gradient_checkpointing=False, save_strategy="no", report_to=[], disable_tqdm=True)
    trainer = InOrder(model=adapted, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    trainer.model.save_pretrained(folder / "trl-adapter")
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@torch.no_grad()
def log_probs(model, tokenizer, pairs):
    """Of every pair: log p of the chosen and of the rejected answer, end of turn included."""
    found = []
    for pair in pairs:
        ids = lambda messages, prompt: tokenizer.apply_chat_template(messages, add_generation_prompt=prompt,
                                                                     return_dict=False)
        begin = len(ids(said("user", pair["prompt"]), True))
        both = []
        for side in ("chosen", "rejected"):
            tokens = torch.tensor([ids(said("user", pair["prompt"]) + said("assistant", pair[side]), False)])
            logits = model(tokens, use_cache=False).logits[0, begin - 1:-1].log_softmax(-1)
            both.append(logits.gather(1, tokens[0, begin:, None]).sum().item())
        found.append(both)
    return torch.tensor(found)


def judge(model_folder, adapter, reference, pairs):
    model, tokenizer = load(model_folder)
    rewards = BETA * (log_probs(PeftModel.from_pretrained(model, adapter).eval(), tokenizer, pairs) - reference)
    margins = rewards[:, 0] - rewards[:, 1]
    return (margins > 0).float().mean().item(), margins.mean().item()


def compare(model_folder, folder):
    pairs = read(folder / "heldout.jsonl")
    ours = check_training.found_losses(folder / "dpo")
    theirs = train_with_trl(model_folder, folder)
    print(f"losses of the first and the last step: TRL {theirs[0]:.4f} {theirs[-1]:.4f}, bakestone {ours[0]:.4f} {ours[-1]:.4f}")
    model, tokenizer = load(model_folder)
    reference = log_probs(model.eval(), tokenizer, pairs)  # the start's B is zero
    (trl, trl_margin), (here, margin) = (judge(model_folder, folder / name, reference, pairs)
                                         for name in ("trl-adapter", "dpo/adapter"))
    print(f"{len(pairs)} held-out pairs, reward accuracy (mean margin): TRL {trl:.3f} ({trl_margin:.2f}), "
          f"bakestone {here:.3f} ({margin:.2f})")
    if len(ours) != len(theirs):
        sys.exit(f"expected as many steps of both, found {len(theirs)} and {len(ours)}")
    if not 0.6 < trl <= 1:
        sys.exit("TRL did not learn to tell held-out pairs apart, so nothing is compared")
    return here >= trl


def main():
    folders = [pathlib.Path(argument) for argument in sys.argv[2:]]
    actions = {("prepare", 3): prepare, ("compare", 2): compare}
    action = actions.get((sys.argv[1] if len(sys.argv) > 1 else "", len(folders)))
    if action is None:
        sys.exit("usage: check_preferences.py prepare MODEL_FOLDER HANDBOOK FOLDER | compare MODEL_FOLDER FOLDER")
    right = action(*folders)
    sys.exit(0 if right is None or right else 1)  # None: nothing was compared


if __name__ == "__main__":
    main()
