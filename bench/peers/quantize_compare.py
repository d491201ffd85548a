#!/usr/bin/env python3
"""Quantizes one model to the same types with this program and with others, and prints how far each file predicts
from the original.

    bench/peers/quantize_compare.py --model MODEL-f32.gguf --types Q4_K_M,Q4_0 --matrix both --tokens 2000 \\
        --text domain=handbook.md --text code=sources.txt --text second=livro.md --kl BUILD/bench/kl_ratio_bench \\
        --llama-quantize ik=/path/to/llama-quantize --ggml llama.cpp=/path/to/libggml-base.so

The first part of each text (--calibrate-share) makes the importance matrix, the rest is measured on, so that
neither knows the other. Divergence is that of kl_ratio_bench: f32 arithmetic, blocks of 256 tokens drawn anew
for the bound. Ratios are ours over theirs: at most 1 is as good.

--llama-quantize runs llama.cpp's or ik_llama.cpp's program, with each tensor in the type that it has in our file,
because ik_llama.cpp's mixes use types of its own. --ggml calls the library's ggml_quantize_chunk for each tensor.
Both read the same matrix, and files of different sizes (0.5 %) are an error. --target-size SIZE compares the types
that we choose for a size with our own fixed mixes that fit it (--types). Needs the packages gguf and numpy.
"""
import argparse
import ctypes
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = {"F32", "F16", "BF16"}
BYTES_A_TOKEN = 3  # at most that few in plain text: so much of each text is enough for its share of tokens
MATRIX_NAMES = ("no", "yes")


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no output"]
        sys.exit(f"{command[0]}: exit code {done.returncode}: {last[0]}")
    return done.stdout


def cut(text, share):
    """The text in two at the end of a line: what the matrix is made of, and what is measured on."""
    at = text.find("\n", int(len(text) * share)) + 1
    return text[:at], text[at:]


class Matrix:
    """An importance matrix of llama.cpp's GGUF form: the mean square of each column, by tensor."""

    def __init__(self, path):
        tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        self.path, self.means = path, {}
        for name, sums in tensors.items():
            if name.endswith(".in_sum2"):
                name = name.removesuffix(".in_sum2")
                counts = tensors[name + ".counts"].reshape(-1, 1)
                self.means[name] = (sums.reshape(len(counts), -1) / counts).astype(numpy.float32)

    def write_dat(self, path):
        """The older form: ik_llama.cpp reads only that one."""
        with open(path, "wb") as file:
            file.write(struct.pack("<i", len(self.means)))
            for name, means in self.means.items():
                values = means.reshape(-1)
                file.write(struct.pack("<i", len(name)) + name.encode())
                file.write(struct.pack("<ii", 1, values.size) + values.tobytes())


class LlamaQuantize:
    def __init__(self, name, program):
        self.name, self.program = name, program

    def write(self, job, out):
        command = [self.program]
        if job.matrix is not None:
            dat = out.with_suffix(".dat")
            job.matrix.write_dat(dat)
            command += ["--imatrix", dat]
        rules = [f"^{tensor.name.replace('.', chr(92) + '.')}$={tensor.tensor_type.name.lower().replace('_k', '_K')}"
                 for tensor in job.ours.tensors if tensor.tensor_type.name not in KEPT]
        for tensor in job.ours.tensors:
            if tensor.name in ("token_embd.weight", "output.weight"):
                kind = tensor.tensor_type.name.lower().replace("_k", "_K")
                command += ["--token-embedding-type" if "embd" in tensor.name else "--output-tensor-type", kind]
        base = job.kind if job.kind != "MXFP4" else "Q4_0"
        run(command + ["--custom-q", ",".join(rules), job.model, out, base, job.threads])


class Ggml:
    def __init__(self, name, library):
        self.name = name
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self.quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
        self.quantize.restype = ctypes.c_size_t
        self.quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                  ctypes.c_int64, ctypes.c_void_p]

    def write(self, job, out):
        """Our file, with the blocks of each quantized tensor replaced."""
        shutil.copyfile(job.ours_path, out)
        originals = {tensor.name: tensor for tensor in gguf.GGUFReader(job.model).tensors}
        with open(out, "r+b") as file:
            for tensor in job.ours.tensors:
                if tensor.tensor_type.name in KEPT:
                    continue
                data = originals[tensor.name].data.astype(numpy.float32)
                data = numpy.ascontiguousarray(data.reshape(-1, data.shape[-1]))
                means = job.matrix.means.get(tensor.name) if job.matrix is not None else None
                matrices = 1 if means is None else len(means)
                file.seek(tensor.data_offset)
                for part in range(matrices):
                    rows = data[len(data) // matrices * part:len(data) // matrices * (part + 1)]
                    blocks = ctypes.create_string_buffer(tensor.n_bytes // matrices)
                    row = None if means is None else means[part].ctypes.data
                    size = self.quantize(int(tensor.tensor_type), rows.ctypes.data, blocks, 0, len(rows),
                                         rows.shape[1], row)
                    if size != len(blocks):
                        sys.exit(f"{self.name}: {tensor.name}: expected {len(blocks)} bytes, found {size}")
                    file.write(blocks)


class Job:
    def __init__(self, args, kind, matrix, ours_path):
        self.model, self.threads, self.kind, self.matrix = args.model, args.threads, kind, matrix
        self.ours_path, self.ours = ours_path, gguf.GGUFReader(ours_path)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF, f32 or f16")
    parser.add_argument("--types", default="Q4_K_M,Q4_0,Q5_K_M,Q6_K,Q8_0,IQ4_XS")
    parser.add_argument("--matrix", choices=("no", "yes", "both"), default="both", help="importance")
    parser.add_argument("--text", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--calibrate-share", type=float, default=0.3)
    parser.add_argument("--calibrate-tokens", type=int, default=20000, help="at most, of all texts together")
    parser.add_argument("--tokens", type=int, default=2000, help="measured, of all texts together")
    parser.add_argument("--bakestone", default=ROOT / "build/release/bakestone")
    parser.add_argument("--kl", default=ROOT / "build/release/bench/kl_ratio_bench")
    parser.add_argument("--llama-quantize", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--ggml", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--target-size", help="such as 90MB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="append a line a comparison to this file")
    parser.add_argument("--at-most", type=float, help="exit code 1 where a ratio's upper bound is above this")
    return parser.parse_args()


class Comparison:
    def __init__(self, args, folder):
        self.args, self.folder, self.measure, self.calibrate, self.worst = args, folder, [], [], 0
        for one in args.text:
            name, _, path = one.partition("=")
            parts = cut(pathlib.Path(path).read_text(encoding="utf-8"), args.calibrate_share)
            parts = (parts[0][:BYTES_A_TOKEN * args.calibrate_tokens // len(args.text)], parts[1])
            for part, kind, files in zip(parts, ("calibrate", "measure"), (self.calibrate, self.measure)):
                file = folder / f"{name}-{kind}.txt"
                file.write_text(part, encoding="utf-8")
                files.append(file)
        self.peers = [make(*one.split("=", 1)) for make, flags in ((LlamaQuantize, args.llama_quantize),
                                                                 (Ggml, args.ggml)) for one in flags]

    def calibrate_flags(self):
        each = [flag for file in self.calibrate for flag in ("--calibrate", file)]
        return each + ["--calibrate-tokens", self.args.calibrate_tokens]

    def ours(self, kind, flags):
        out = self.folder / f"ours-{kind}.gguf"
        run([self.args.bakestone, "quantize", self.args.model, out, "--threads", self.args.threads, *flags])
        return out

    def make_matrix(self):
        path = self.folder / "imatrix.gguf"
        self.ours("Q8_0", ["--type", "Q8_0", "--save-imatrix", path, *self.calibrate_flags()])
        return Matrix(path)

    def score(self, files):
        texts = [flag for file in self.measure for flag in ("--text", file)]
        out = run([self.args.kl, self.args.model, *files, *texts, "--tokens",
                   max(2, self.args.tokens // len(self.measure)), "--threads", self.args.threads])
        return json.loads(out)

    def report(self, kind, matrix, names, result, files):
        ours = result["files"][0]
        for name, theirs in zip(names, result["files"][1:]):
            self.worst = max(self.worst, theirs["ratio_upper"])
            print(f"{kind:8} {matrix:6} {name:10} {ours['kl_mean']:10.6f} {theirs['kl_mean']:10.6f} "
                  f"{theirs['ratio']:7.3f} {theirs['ratio_upper']:7.3f} {ours['kl_p99']:9.5f} {theirs['kl_p99']:9.5f} "
                  f"{100 * ours['flips']:7.2f} {100 * theirs['flips']:7.2f} {result['tokens']:7d}", flush=True)
        if self.args.json:
            with open(self.args.json, "a", encoding="utf-8") as file:
                row = {"model": str(self.args.model), "type": kind, "matrix": matrix, "peers": names,
                       "bytes": [pathlib.Path(one).stat().st_size for one in files], **result}
                file.write(json.dumps(row) + "\n")

    def against_peers(self, kind, matrix):
        flags = ["--imatrix", matrix.path] if matrix is not None else []
        files = [self.ours(kind, ["--type", kind, *flags])]
        job = Job(self.args, kind, matrix, files[0])
        for peer in self.peers:
            files.append(self.folder / f"{peer.name}.gguf")
            peer.write(job, files[-1])
            sizes = [file.stat().st_size for file in (files[0], files[-1])]
            if abs(sizes[0] / sizes[1] - 1) > 0.005:
                sys.exit(f"{kind}: expected files of one size, found {sizes[0]} and {sizes[1]} ({peer.name})")
        names = [peer.name for peer in self.peers]
        self.report(kind, MATRIX_NAMES[matrix is not None], names, self.score(files), files)

    def against_mixes(self, matrix):
        chosen = self.ours("chosen", ["--target-size", self.args.target_size, *self.calibrate_flags()])
        for kind in self.args.types.split(","):
            mix = self.ours(kind, ["--type", kind, "--imatrix", matrix.path])
            name = f"{mix.stat().st_size / chosen.stat().st_size:.3f}x"
            self.report(kind, "yes", [name], self.score([chosen, mix]), [chosen, mix])


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(args, pathlib.Path(folder))
        matrix = comparison.make_matrix() if args.matrix != "no" or args.target_size else None
        print(f"{'type':8} {'matrix':6} {'against':10} {'KL ours':>10} {'theirs':>10} {'ratio':>7} {'upper':>7} "
              f"{'p99 ours':>9} {'theirs':>9} {'flips %':>7} {'theirs':>7} {'tokens':>7}", flush=True)
        if args.target_size:
            comparison.against_mixes(matrix)
        else:
            for kind in args.types.split(","):
                for with_matrix in {"no": [None], "yes": [matrix], "both": [None, matrix]}[args.matrix]:
                    comparison.against_peers(kind, with_matrix)
    if args.at_most is not None and comparison.worst > args.at_most:
        sys.exit(f"expected ratios of at most {args.at_most} with 95 % certainty, found up to {comparison.worst:.3f}")


if __name__ == "__main__":
    main()
