#!/usr/bin/env python3
"""Training steps of PyTorch and PEFT on the CPU, as `bakestone bench MODEL --train` does them:

    bakestone export MODEL.gguf FOLDER --type bf16
    peft_train_bench.py FOLDER [--rows 512] [--document 512 | --chats] [--rank 16] [--steps 5] [--threads 2] [--dtype bfloat16]

LoRA pairs on every linear of a Hugging Face folder, random tokens, each document a row of the batch, forward, backward,
clipping and AdamW; --rank 0 trains the whole model. --chats: documents of 20 to 1,500 tokens as there, of which the last 30 %
are learned, 8 of a row padded to the longest, their gradients summed over the step; tokens are counted without padding. Prints {"tokens_per_second": ..., "peak_bytes": ...}: the median
step after one to warm up, and the most memory that the process held. Needs torch, transformers and peft.
"""
import argparse
import json
import os
import resource
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def chat_lengths(rows):
    """As `bakestone bench --train --chats` has them."""
    lengths, i = [], 0
    while sum(lengths) < rows:
        i += 1
        share = sum((i >> bit & 1) * 0.5 ** (bit + 1) for bit in range(32))
        lengths.append(int(20 * 75 ** share))
    return lengths


def batches_of(args, vocabulary):
    """(ids, labels, mask) of the parts of a step, and its tokens."""
    if not args.chats:
        batch = args.rows // args.document
        ids = torch.randint(0, vocabulary, (batch, args.document))
        return [(ids, ids, torch.ones_like(ids))], ids.numel()
    lengths, parts = chat_lengths(args.rows), []
    for first in range(0, len(lengths), 8):
        own = lengths[first:first + 8]
        ids = torch.randint(0, vocabulary, (len(own), max(own)))
        labels, mask = ids.clone(), torch.zeros_like(ids)
        for row, length in enumerate(own):
            mask[row, :length] = 1
            labels[row, :length - max(1, int(0.3 * length))] = -100
            labels[row, length:] = -100
        parts.append((ids, labels, mask))
    return parts, sum(lengths)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--document", type=int, default=512)
    parser.add_argument("--chats", action="store_true")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=getattr(torch, args.dtype))
    if args.rank > 0:
        model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear",
                                                 task_type="CAUSAL_LM"))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0)
    parts, tokens = batches_of(args, model.config.vocab_size)
    seconds = []
    for step in range(args.steps + 1):
        start = time.monotonic()
        for ids, labels, mask in parts:
            model(input_ids=ids, labels=labels, attention_mask=mask if args.chats else None).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step > 0:
            seconds.append(time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens_per_second": tokens / statistics.median(seconds), "peak_bytes": peak}))


if __name__ == "__main__":
    main()
