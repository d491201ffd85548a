#!/usr/bin/env python3
"""Renders the chat templates of real models with jinja2 and with Bakestone and compares the texts.

    tools/check_real_templates.py BAKESTONE_BINARY [--cache FOLDER] [--templates FOLDER]

The templates are third-party text and not part of this project: they come from the source package of
llama-cpp-python, fetched by name and version with pip into the cache folder. A template that uses what
only its own host offers is counted as such when jinja2 refuses it as well. Exit status 1 on any difference.
Needs jinja2."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import chat_oracle  # noqa: E402
import template_contexts  # noqa: E402

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"


def fetch(cache):
    """The folder with *.jinja files, downloaded and unpacked once."""
    folder = cache / f"{PACKAGE}-{VERSION}-templates"
    if folder.is_dir() and any(folder.glob("*.jinja")):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE,
                    "--dest", str(cache), f"{PACKAGE}=={VERSION}"], check=True)
    archive = next(cache.glob(f"*{VERSION}.tar.gz"))
    partial = pathlib.Path(tempfile.mkdtemp(dir=cache))
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile() and "/models/templates/" in member.name and member.name.endswith(".jinja"):
                (partial / pathlib.PurePosixPath(member.name).name).write_bytes(tar.extractfile(member).read())
    archive.unlink()
    partial.rename(folder)
    return folder


def compare(binary, path, name, context_file, context):
    """One of "same", "both refuse", or a description of the difference."""
    expected, error = chat_oracle.render(path.read_text(encoding="utf-8"), context)
    run = subprocess.run([binary, "template", str(path), "--context", str(context_file), "--now", chat_oracle.NOW],
                         capture_output=True, check=False, timeout=60)
    if run.returncode == 0:
        if expected is None:
            return f"{path.name} x {name}: jinja2 refuses ({error}), we render"
        if run.stdout.decode() == expected:
            return "same"
        got = run.stdout.decode(errors="replace")
        at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
        return f"{path.name} x {name}: at {at}: expected {expected[at - 20:at + 60]!r}, found {got[at - 20:at + 60]!r}"
    if expected is None:
        return "both refuse"
    return f"{path.name} x {name}: {run.stderr.decode(errors='replace').strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = os.environ.get("BAKESTONE_HOME", str(pathlib.Path.home() / ".local/share/bakestone"))
    parser.add_argument("binary")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(home) / "check")
    parser.add_argument("--templates", type=pathlib.Path, help="a folder of *.jinja files instead of the package's")
    options = parser.parse_args()
    templates = sorted((options.templates or fetch(options.cache)).glob("*.jinja"))
    contexts = template_contexts.contexts()
    problems, same, refused = [], 0, 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = []
        for name, context in contexts.items():
            file = pathlib.Path(folder) / f"{name}.json"
            file.write_text(json.dumps(context, ensure_ascii=False), encoding="utf-8")
            jobs += [pool.submit(compare, options.binary, path, name, file, context) for path in templates]
        for job in jobs:
            result = job.result()
            same += result == "same"
            refused += result == "both refuse"
            if result not in ("same", "both refuse"):
                problems.append(result)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(templates)} templates x {len(contexts)} contexts: {same} equal, {refused} refused by both, "
          f"{len(problems)} different")
    return 1 if problems or not templates or same == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
