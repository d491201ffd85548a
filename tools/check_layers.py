#!/usr/bin/env python3
"""Checks every #include in src/ against the layer table: a file may include its own folder and lower
layers only. Also: no getenv outside cli/, no hardware #if outside kernels/ (and base/thread_pool.cc,
which sets the floating-point environment), no std::regex, exit or abort anywhere but cli/."""
import pathlib
import re
import sys

LAYERS = {
    "base": 0, "tensor": 1, "text": 1, "kernels": 2, "format": 2, "ops": 3, "model": 4, "store": 4, "data": 4,
    "engine": 5, "eval": 6, "grammar": 6, "train": 7, "convert": 7, "retrieval": 7, "server": 8, "load": 8,
    "pipeline": 8,
    "api": 9, "cli": 10,
}
# Folders of one layer may not include each other, with the exceptions that the design states.
SAME_LAYER = {("pipeline", "server"), ("store", "format")}
FORBIDDEN = [("server", "train")]
RULES = [
    (re.compile(r"\bstd::regex\b"), set(), "std::regex overflows the stack on long input"),
    (re.compile(r"\bgetenv\s*\("), {"cli"}, "configuration is passed; getenv only in cli/"),
    (re.compile(r"\b(?:std::)?(?:exit|abort|quick_exit)\s*\("), {"cli"}, "throw bakestone::Error"),
    (re.compile(r"^\s*#\s*(?:el)?if.*__(?:AVX|AMX|ARM|aarch64|x86_64)"), {"kernels"},
     "hardware #if only in kernels/"),
]
HARDWARE_EXCEPTIONS = {"base/thread_pool.cc"}


def main():
    src = pathlib.Path(__file__).resolve().parent.parent / "src"
    problems, files = [], 0
    for path in sorted(src.rglob("*")):
        if path.suffix not in {".cc", ".h"}:
            continue
        files += 1
        name = path.relative_to(src)
        layer = name.parts[0]
        if layer not in LAYERS:
            problems.append(f"{name}: folder {layer} is not in the layer table")
            continue
        test = name.name.endswith("_test.cc")
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"src/{name}:{number}"
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if match:
                target = match.group(1).split("/")[0]
                if target not in LAYERS:
                    problems.append(f'{where}: "{match.group(1)}" is not a path from src/')
                elif (layer, target) in FORBIDDEN or (
                    target != layer and LAYERS[target] >= LAYERS[layer]
                    and (layer, target) not in SAME_LAYER):
                    problems.append(f"{where}: {layer} (layer {LAYERS[layer]}) may not include "
                                    f"{target} (layer {LAYERS[target]})")
            if test:
                continue
            for pattern, allowed, reason in RULES:
                if pattern.search(line.split("//")[0]) and layer not in allowed:
                    if "hardware" in reason and str(name) in HARDWARE_EXCEPTIONS:
                        continue
                    problems.append(f"{where}: {line.strip()}: {reason}")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{files} files, {len(problems)} problems")
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
