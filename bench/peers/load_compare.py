#!/usr/bin/env python3
"""How long a Hugging Face folder takes to load here and in transformers, its files in the page cache.

    bench/peers/load_compare.py FOLDER [--bakestone BUILD/bakestone] [--repeat 3] [--quantize q4_k_m]

Ours is `bakestone run FOLDER --raw --max-tokens 1` from its start to the token, and in brackets to its end: packed in
memory, then with packed weights kept, the first time (they are written after the answer) and again; with --quantize
all of that once more, quantized while it is loaded. Theirs is from_pretrained alone, without the start of Python and its
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
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen([str(args.bakestone), "run", args.folder, "a", "--raw", "--max-tokens", "1",
                                  "--temperature", "0", *flags], env=os.environ | {"BAKESTONE_HOME": home},
                                 stdout=subprocess.PIPE, stderr=log)
        child.stdout.read(1)
        answered = time.perf_counter() - begin
        child.stdout.read()
        if child.wait() != 0:
            log.seek(0)
            sys.exit(f"bakestone: {log.read().decode().strip()}")
    return answered, time.perf_counter() - begin


def compare(args, *flags):
    def say(what, times):
        print(f"bakestone{''.join(' ' + flag for flag in flags)}, {what:<21}{min(times)[0]:7.2f} s"
              f" ({min(times)[1]:.2f} s)", flush=True)
    rounds = range(args.repeat)
    with tempfile.TemporaryDirectory(dir=args.home) as home:
        say("packed in memory", [ours(args, home, "--no-pack-cache", *flags) for _ in rounds])
        say("first time", [ours(args, home, *flags)])
        say("packed weights kept", [ours(args, home, *flags) for _ in rounds])


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
    parser.add_argument("--quantize", help="also quantized while it is loaded: q4_k_m, q8_0...")
    parser.add_argument("--home", help="where the packed weights are kept meanwhile; the system's temporary folder")
    args = parser.parse_args()
    files = list(pathlib.Path(args.folder).glob("*.safetensors"))
    for file in files:
        with open(file, "rb") as content:  # into the page cache
            while content.read(1 << 24):
                pass
    print(f"{sum(file.stat().st_size for file in files) / 1e9:.2f} GB", flush=True)
    compare(args)
    if args.quantize:
        compare(args, "--quantize", args.quantize)
    loads, reads = zip(*(theirs(args) for _ in range(args.repeat)))
    print(f"transformers                      {min(loads):7.2f} s, {min(reads):.2f} s with every weight read")


if __name__ == "__main__":
    main()
