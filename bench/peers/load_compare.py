#!/usr/bin/env python3
"""How long a Hugging Face folder takes to load here and in transformers, its files in the page cache.

    bench/peers/load_compare.py FOLDER [--bakestone BUILD/bakestone] [--repeat 3]

Ours is a whole `bakestone run FOLDER --raw --max-tokens 1`: start, load, one token, end; packed in memory, then with
packed weights kept, the first time and again. Theirs is from_pretrained alone, without the start of Python and its
imports, in the folder's own type, and then every weight read once: what is only mapped is not loaded. The least of the
repetitions counts. Needs the packages torch and transformers.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def ours(args, home, *flags):
    begin = time.perf_counter()
    done = subprocess.run([str(args.bakestone), "run", args.folder, "a", "--raw", "--max-tokens", "1", "--temperature", "0",
                           *flags], env=os.environ | {"BAKESTONE_HOME": home}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bakestone: {done.stderr.strip()}")
    return time.perf_counter() - begin


def theirs(args):
    import torch
    import transformers
    begin = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype="auto")
    loaded = time.perf_counter() - begin
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(torch.int16).max()
    return loaded, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--bakestone", default=ROOT / "build/release/bakestone")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    files = list(pathlib.Path(args.folder).glob("*.safetensors"))
    for file in files:
        file.read_bytes()
    print(f"{sum(file.stat().st_size for file in files) / 1e9:.2f} GB")
    rounds = range(args.repeat)
    with tempfile.TemporaryDirectory() as home:
        print(f"bakestone, packed in memory    {min(ours(args, home, '--no-pack-cache') for _ in rounds):7.2f} s")
        print(f"bakestone, first time          {ours(args, home):7.2f} s")
        print(f"bakestone, packed weights kept {min(ours(args, home) for _ in rounds):7.2f} s")
    loads, reads = zip(*(theirs(args) for _ in rounds))
    print(f"transformers                   {min(loads):7.2f} s, {min(reads):.2f} s with every weight read")


if __name__ == "__main__":
    main()
