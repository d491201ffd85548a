#!/usr/bin/env python3
"""Embeddings of a MiniLM-class encoder here and in onnxruntime, both in 8 bits: tokens a second, in turn.

    bench/peers/embed_compare.py [--bakestone BUILD/bakestone] [--rounds 3] [--types q8_0,q4_0]

The encoder has MiniLM-L6's shape (6 layers of 384, 22.6 million weights) and random weights; the texts are 128 tokens
each, 64 of them a batch. Ours is the difference between `bakestone embed` of 20 batches and of one, which leaves out
start and loading but has tokenizing and printing in it; theirs is the median of whole batches of ids that are made
beforehand, of the model that quantize_dynamic makes. Needs the packages torch, transformers, onnx, onnxscript and
onnxruntime.
"""
import argparse
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS, TOKENS, BATCHES = 64, 128, 20


def make(folder):
    """The encoder as a Hugging Face folder, and as an ONNX file of 8 bits; the texts of a batch."""
    import torch
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic
    torch.manual_seed(1)
    words = ["[PAD]"] + [f"[unused{i}]" for i in range(99)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{i}" for i in range(30522 - len(words))]
    model_folder = folder / "encoder"
    model_folder.mkdir()
    (model_folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(model_folder / "vocab.txt"), model_max_length=512)
    tokenizer.save_pretrained(model_folder)
    model = transformers.BertModel(transformers.BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        attn_implementation="eager"), add_pooling_layer=False).eval()
    model.save_pretrained(model_folder)
    rng = random.Random(2)
    texts = [" ".join(f"w{rng.randrange(30000)}" for _ in range(TOKENS - 2)) for _ in range(TEXTS)]
    ids = dict(tokenizer(texts, return_tensors="pt"))

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids=input_ids, attention_mask=attention_mask,
                              token_type_ids=token_type_ids).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(States(), tuple(ids[name] for name in names), str(folder / "f32.onnx"), input_names=names,
                      output_names=["states"], dynamo=False, opset_version=17)
    quantize_dynamic(str(folder / "f32.onnx"), str(folder / "int8.onnx"), weight_type=QuantType.QInt8)
    return texts, {name: ids[name].numpy() for name in names}


def theirs(session, ids):
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        session.run(None, ids)
        seconds.append(time.perf_counter() - begin)
    return TEXTS * TOKENS / statistics.median(seconds)


def ours(program, model, texts):
    def run(batches):
        begin = time.perf_counter()
        done = subprocess.run([program, "embed", model], input="\n".join(texts * batches) + "\n", capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"bakestone: {done.stderr.strip()}")
        return time.perf_counter() - begin
    one = run(1)
    return (BATCHES - 1) * TEXTS * TOKENS / (run(BATCHES) - one)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bakestone", default=str(ROOT / "build/release/bakestone"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", default="q8_0,q4_0")
    args = parser.parse_args()
    import onnxruntime
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        texts, ids = make(folder)
        models = {}
        for kind in args.types.split(","):
            models[kind] = str(folder / f"{kind}.gguf")
            subprocess.run([args.bakestone, "quantize", folder / "encoder", models[kind], "--type", kind], check=True,
                           capture_output=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), options, providers=["CPUExecutionProvider"])
        rates = {}
        for _ in range(args.rounds):
            rates.setdefault("onnxruntime int8", []).append(theirs(session, ids))
            for kind, model in models.items():
                rates.setdefault(f"bakestone {kind}", []).append(ours(args.bakestone, model, texts))
        peer = statistics.median(rates["onnxruntime int8"])
        for who, each in rates.items():
            median = statistics.median(each)
            print(f"{who:18} {median:9.0f} tokens/s  {median / peer:5.2f}x   "
                  f"{min(each):.0f} .. {max(each):.0f}")


if __name__ == "__main__":
    main()
