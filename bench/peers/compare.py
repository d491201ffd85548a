#!/usr/bin/env python3
"""Runs other engines beside this one on the same file and threads, and prints ratios of medians.

    bench/peers/compare.py --model MODEL.gguf --tests prefill-512,decode-128,batch-8 --rounds 5 \\
        --llama-bench "ik=/path/to/llama-bench" --batched-bench "ik=/path/to/llama-batched-bench" \\
        --node-llama-cpp FOLDER --openvino PYTHON

Tests: prefill-TOKENS (a prompt, tokens/s), decode-TOKENS (that many after an empty context), batch-SEQUENCES
(decoded together, 64 tokens each, total tokens/s). In every round each program measures each test once, one
program after the other, so that a machine whose speed drifts slows all of them alike. Every program warms
up by itself. A peer that fails a test has '-' there, and says why on stderr.

--llama-bench and --batched-bench may be repeated and take options: "ik-repack=/path/llama-bench -rtr 1".
FOLDER is where node-llama-cpp is installed (it carries a prebuilt llama.cpp), PYTHON one that has
openvino-genai. Nothing is downloaded.
"""
import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BATCH_TOKENS = 64


class PeerError(Exception):
    pass


def run(command, cwd=tempfile.gettempdir(), both=False):
    """Its output. In a folder where the logs that some write are in nobody's way."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise PeerError(f"{command[0]}: exit code {done.returncode}: {last[0]}")
    return done.stdout + (done.stderr if both else "")


def split(test):
    kind, _, number = test.rpartition("-")
    if kind not in ("prefill", "decode", "batch") or not number.isdigit() or int(number) < 1:
        sys.exit(f"--tests: expected prefill-N, decode-N or batch-N, found '{test}'")
    return kind, int(number)


class Bakestone:
    def __init__(self, program, args):
        self.name, self.program, self.args = "bakestone", program, args

    def measure(self, kind, number):
        name, tokens = {"prefill": (f"prefill-{number}", 1), "decode": ("decode-0", number),
                        "batch": (f"batch-{number}", BATCH_TOKENS)}[kind]
        out = run([self.program, "bench", self.args.model, "--only", name, "--repetitions", 1, "--json",
                   "--decode-tokens", tokens, "--threads", self.args.threads])
        return json.loads(out)["figures"][0]["median"]


class LlamaBench:
    """llama-bench of llama.cpp or ik_llama.cpp, and llama-batched-bench for sequences together."""

    def __init__(self, name, args):
        self.name, self.args, self.single, self.batched = name, args, None, None

    def measure(self, kind, number):
        if kind == "batch":
            return self.measure_batch(number)
        if self.single is None:
            raise PeerError("no --llama-bench given")
        sizes = (number, 0) if kind == "prefill" else (0, number)
        out = run([*self.single, "-m", self.args.model, "-t", self.args.threads, "-p", sizes[0], "-n", sizes[1],
                   "-r", 1, "-o", "json"])
        return json.loads(out[out.index("["):])[0]["avg_ts"]

    def measure_batch(self, number):
        if self.batched is None:
            raise PeerError("no --batched-bench given")
        context = number * (BATCH_TOKENS + 16) + 64
        out = run([*self.batched, "-m", self.args.model, "-t", self.args.threads, "-c", context, "-b", 2048, "-ub",
                   512, "-npp", 8, "-ntg", BATCH_TOKENS, "-npl", number], both=True)  # some print it on stderr
        columns = None
        for line in out.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if "S_TG t/s" in cells:
                columns = cells
            elif columns and len(cells) == len(columns) and cells[0].isdigit():
                return float(cells[columns.index("S_TG t/s")])
        raise PeerError(f"{self.batched[0]}: no row of figures in its output")


class NodeLlama:
    def __init__(self, folder, args):
        self.name, self.folder, self.args = "llama.cpp (node)", folder, args

    def measure(self, kind, number):
        if kind == "batch":
            raise PeerError("sequences together are not measured through node-llama-cpp")
        out = run(["node", HERE / "node_llama.mjs", self.args.model, self.args.threads,
                   kind, number], cwd=self.folder)
        return json.loads(out.splitlines()[-1])["tokens_per_second"]


class OpenVino:
    def __init__(self, python, args):
        self.name, self.python, self.args = "openvino-genai", python, args

    def measure(self, kind, number):
        if kind == "batch":
            raise PeerError("sequences together are not measured through openvino-genai")
        out = run([self.python, HERE / "openvino_genai_bench.py", self.args.model, self.args.threads, kind, number])
        return json.loads(out.splitlines()[-1])["tokens_per_second"]


def named(values, flag):
    for value in values:
        name, equals, command = value.partition("=")
        if not equals or not command:
            sys.exit(f"{flag}: expected NAME=PATH, found '{value}'")
        words = shlex.split(command)
        yield name, [pathlib.Path(words[0]).resolve(), *words[1:]]


def programs(args):
    found = [Bakestone(args.bakestone, args)]
    peers = {}
    for flag, field, values in (("--llama-bench", "single", args.llama_bench),
                                ("--batched-bench", "batched", args.batched_bench)):
        for name, command in named(values, flag):
            setattr(peers.setdefault(name, LlamaBench(name, args)), field, command)
    found += peers.values()
    found += [NodeLlama(folder, args) for folder in args.node_llama_cpp]
    found += [OpenVino(python, args) for python in args.openvino]
    return found


def collect(found, tests, rounds):
    values = {(program.name, test): [] for program in found for test in tests}
    failed = set()
    for number in range(rounds):
        for test in tests:
            for program in found:
                if (program.name, test) in failed:
                    continue
                try:
                    values[program.name, test].append(program.measure(*split(test)))
                except (PeerError, ValueError, KeyError, OSError) as error:
                    failed.add((program.name, test))
                    print(f"{program.name}: {test}: {error}", file=sys.stderr)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return values


def cell(runs):
    if not runs:
        return "-"
    return f"{statistics.median(runs):.1f} ({min(runs):.0f}-{max(runs):.0f})"


def print_table(found, tests, values):
    width = max(len(program.name) for program in found) + 2
    column = max(22, *(len(test) + 2 for test in tests))
    print(f"tokens/s: median (least-most)\n{'':{width}}" + "".join(f"{test:>{column}}" for test in tests))
    for program in found:
        print(f"{program.name:{width}}" + "".join(f"{cell(values[program.name, test]):>{column}}" for test in tests))
    ours = found[0].name
    print(f"\n{ours} over each")
    for program in found[1:]:
        ratios = []
        for test in tests:
            theirs, mine = values[program.name, test], values[ours, test]
            ratios.append(f"{statistics.median(mine) / statistics.median(theirs):.2f}x" if theirs and mine else "-")
        print(f"{program.name:{width}}" + "".join(f"{ratio:>{column}}" for ratio in ratios))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bakestone", default=HERE.parents[1] / "build" / "release" / "bakestone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tests", default="prefill-512,decode-128")
    parser.add_argument("--llama-bench", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--batched-bench", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--node-llama-cpp", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--openvino", action="append", default=[], metavar="PYTHON")
    parser.add_argument("--json", action="store_true", help="print every value instead of the table")
    args = parser.parse_args()
    tests = args.tests.split(",")
    for test in tests:
        split(test)
    args.model = pathlib.Path(args.model).resolve()
    args.bakestone = pathlib.Path(args.bakestone).resolve()
    found = programs(args)
    values = collect(found, tests, args.rounds)
    if args.json:
        print(json.dumps({program.name: {test: values[program.name, test] for test in tests}
                          for program in found}, indent=2))
    else:
        print_table(found, tests, values)
    return 0 if all(values[found[0].name, test] for test in tests) else 1


if __name__ == "__main__":
    sys.exit(main())
