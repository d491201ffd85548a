#!/usr/bin/env python3
"""The real model as a Hugging Face folder in bf16, quantized while it is loaded: the answer of the file that `quantize
--fast` writes, kept for the next start, another model to clients than the folder itself, and never twice in memory."""
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from served import check, finish, start

binary = str(pathlib.Path(sys.argv[1]).resolve())
HOME = pathlib.Path(os.environ.get("BAKESTONE_HOME", pathlib.Path.home() / ".local/share/bakestone"))
MODEL = str(HOME / "models/smollm2-135m-instruct.gguf")
work = tempfile.TemporaryDirectory()
folder, file, home = (f"{work.name}/{name}" for name in ("folder", "q8.gguf", "home"))
os.environ["BAKESTONE_HOME"] = home
ASK = ["What is the capital of France?", "--max-tokens", "24", "--temperature", "0"]


def run(*arguments):
    """(exit code, stdout, stderr, peak bytes)"""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        with os.fdopen(writer, "w") as out:
            json.dump([done.returncode, done.stdout, done.stderr, peak], out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        result = json.load(answer)
    os.waitpid(child, 0)
    return result


def panels():
    return {path.name: path.stat().st_mtime_ns for path in pathlib.Path(home).glob("cache/packed/*.panels")}


code, _, err, _ = run("export", MODEL, folder, "--type", "bf16")
check(code == 0, f"export: {err}")
code, _, err, _ = run("quantize", folder, file, "--type", "q8_0", "--fast")
check(code == 0, f"quantize --fast: {err}")

code, plain, err, plain_peak = run("run", file, *ASK, "--no-pack-cache")
check(code == 0 and len(plain) > 20, f"the written file's answer: {plain} {err}")
code, answer, err, peak = run("run", folder, *ASK, "--no-pack-cache", "--quantize", "q8_0")
check(code == 0 and answer == plain, f"another answer than the written file's: {answer} {plain} {err}")
check("quantized as it is loaded: Q8_0" in err and "bits a weight" in err, f"what was chosen: {err}")
check(peak < 1.1 * plain_peak, f"peak memory: {peak} beside {plain_peak} of the quantized file")
check(not panels(), "--no-pack-cache kept weights")

code, first, err, _ = run("run", folder, *ASK, "--quantize", "Q8_0")
kept = panels()
check(code == 0 and first == answer and len(kept) == 1, f"the first start: {first} {kept} {err}")
code, second, err, _ = run("run", folder, *ASK, "--quantize", "q8_0")
check(code == 0 and second == answer and panels() == kept, f"the second start: {second} {panels()} {err}")
code, _, err, _ = run("run", folder, *ASK, "--quantize", "q4_k_m")
check(code == 0 and "instead of Q4_K" in err and len(panels()) == 2, f"another type: {panels()} {err}")

code, _, err, _ = run("run", file, *ASK, "--quantize", "q8_0")
check(code == 1 and "expected a model that Q8_0 makes smaller, found one of Q8_0 already" in err, f"refusal: {err}")
code, _, err, _ = run("run", file, *ASK, "--quantize", "q4_0")
check(code == 0 and "have the errors of both" in err, f"warning: {err}")
code, _, err, _ = run("run", folder, *ASK, "--quantize", "q9")
check(code == 2 and "--quantize: expected one of" in err, f"an unknown type: {code} {err}")
text = f"{work.name}/text"
pathlib.Path(text).write_text("The ferry leaves at nine, and comes back before the rain. " * 8)
code, out, err, _ = run("eval", folder, "--text", text, "--quantize", "q8_0")
check(code == 0 and "quantized as it is loaded" in err, f"eval: {err}")
code, out, err, _ = run("embed", folder, "ferry", "--quantize", "q8_0")
check(code == 0 and json.loads(out)["embedding"], f"embed: {err}")


# An adapter of the quantized base: trained on it, and known to be of it alone.
recipe = pathlib.Path(work.name, "book/bake.toml")
recipe.parent.mkdir()
(recipe.parent / "ferry.md").write_text("The ferry leaves at nine, and comes back before the rain.\n\n" * 4)
recipe.write_text(f"""name = "ferry"
base = "{folder}"
[[data]]
name = "ferry"
path = "ferry.md"
licence = "CC0-1.0"
[lora]
rank = 4
[[stage]]
name = "read"
method = "pretrain"
data = ["ferry"]
batch = 1
learning_rate = 1e-3
""")
out = f"{work.name}/out"
code, table, err, _ = run("train", str(recipe), "--output", out, "--quantize", "q8_0")
check(code == 0 and f"run {folder} --quantize q8_0 --adapter" in table, f"train: {table} {err}")
for flags, other in ((["--quantize", "q8_0"], False), ([], True)):
    code, _, err, _ = run("run", folder, *ASK, "--adapter", f"{out}/adapter.gguf", *flags)
    check(code == 0 and ("trained on another file" in err) == other, f"the adapter beside {flags}: {err}")


def served(*flags):
    process, url = start(binary, folder, *flags)
    body = {"model": "folder", "messages": [{"role": "user", "content": ASK[0]}], "max_tokens": 24, "temperature": 0}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        result = json.load(reply)
    process.terminate()
    process.wait()
    return result


quantized, whole = served("--quantize", "q8_0"), served()
check(quantized["choices"][0]["message"]["content"].strip() == answer.strip(), f"the server's answer: {quantized}")
check(quantized["system_fingerprint"] != whole["system_fingerprint"], "one fingerprint for other weights")
finish()
