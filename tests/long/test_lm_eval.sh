#!/usr/bin/env bash
# EleutherAI's evaluation harness through the server: what it makes of paragraphs (loglikelihood) equals what
# `bakestone eval` says of them, and multiple choice and generation run. PyPI's lm-eval is fetched once into the home folder.
source "$(dirname "$0")/../e2e/lib.sh"
harness="lm-eval[api]==0.4.13"
venv=$BAKESTONE_HOME/venv-lm-eval
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$harness" ]; then
  rm -rf "$venv" && python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "$harness"
  echo "$harness" >"$venv/installed"
fi

"$bakestone" serve "$model" --port 0 --max-context 2048 >"$work/url" 2>"$work/serve.log" &
server=$!
for _ in $(seq 300); do [ -s "$work/url" ] && break; sleep 0.1; done
url=$(cat "$work/url")
mkdir "$work/tasks" "$work/texts"

# Paragraphs of the handbook, each cut after its first word, which is one token on its own.
python3 - "$repository/examples/handbook/handbook.md" "$work" "$url" <<'PY'
import json, pathlib, sys, urllib.request
book, work, url = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
def tokens(text):
    request = urllib.request.Request(url + "/tokenize", json.dumps({"prompt": text, "add_special_tokens": False}).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]
documents = []
for paragraph in book.read_text().split("\n\n"):
    text = " ".join(paragraph.split())
    first, _, rest = text.partition(" ")
    if len(text) < 120 or text[0] in "#|-*" or not first.isalpha():
        continue
    whole = tokens(text)
    if len(tokens(first)) == 1 and whole[:1] == tokens(first) and len(whole) < 500:
        documents.append({"first": first, "rest": " " + rest})
documents = documents[:24]
assert len(documents) >= 8, len(documents)
(work / "tasks/documents.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
for i, one in enumerate(documents):
    (work / f"texts/{i:02}.txt").write_text(one["first"] + one["rest"])
common = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {work}/tasks/%s.jsonl}}}}\ntest_split: test\n"
(work / "tasks/paragraphs.yaml").write_text(
    "task: paragraphs\noutput_type: loglikelihood\n" + common % "documents" +
    'doc_to_text: "{{first}}"\ndoc_to_target: "{{rest}}"\ntarget_delimiter: ""\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n')
questions = [("The capital of France is", ["Paris", "Berlin", "Madrid"]), ("The opposite of hot is", ["cold", "blue", "seven"]),
             ("Water freezes at zero degrees", ["Celsius", "banana", "Tuesday"]), ("Two and two make", ["four", "nine", "green"])]
(work / "tasks/questions.jsonl").write_text("".join(json.dumps({"question": q, "choices": c, "label": 0}) + "\n" for q, c in questions))
(work / "tasks/choices.yaml").write_text(
    "task: choices\noutput_type: multiple_choice\n" + common % "questions" +
    'doc_to_text: "{{question}}"\ndoc_to_choice: choices\ndoc_to_target: label\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n')
(work / "tasks/continued.yaml").write_text(
    "task: continued\noutput_type: generate_until\n" + common % "questions" +
    'doc_to_text: "{{question}}"\ndoc_to_target: "{{choices[0]}}"\ngeneration_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false, temperature: 0}\n'
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n")
PY

HF_DATASETS_OFFLINE=1 HF_HOME="$work/hf" OPENAI_API_KEY=none "$venv/bin/lm-eval" run --model local-completions \
  --model_args "model=$(basename "$model" .gguf),base_url=$url/v1/completions,tokenizer_backend=remote,num_concurrent=2,max_length=2048" \
  --include_path "$work/tasks" --tasks paragraphs,choices,continued --batch_size 4 --log_samples --output_path "$work/results" \
  >"$work/lm-eval.log" 2>&1 || { tail -n 30 "$work/lm-eval.log" >&2; fail "lm-eval"; }
texts=()
for text in "$work"/texts/*.txt; do texts+=(--text "$text"); done
"$bakestone" eval "$model" "${texts[@]}" --json >"$work/eval.json" 2>"$work/log" || { cat "$work/log" >&2; fail "bakestone eval"; }

python3 - "$work" <<'PY' || fail "the harness and bakestone eval say the same"
import json, math, pathlib, sys
work = pathlib.Path(sys.argv[1])
ours = json.loads((work / "eval.json").read_text())["texts"]
samples = {}
for path in (work / "results").rglob("samples_*.jsonl"):
    name = path.name.split("_")[1]
    samples[name] = sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda one: one["doc_id"])
assert set(samples) == {"paragraphs", "choices", "continued"}, samples.keys()
assert len(samples["paragraphs"]) == len(ours) >= 8
worst = 0
for sample, text in zip(samples["paragraphs"], ours):
    harness = float(sample["filtered_resps"][0][0])
    own = -text["bits_per_byte"] * math.log(2) * text["bytes"]
    worst = max(worst, abs(harness - own) / abs(own))
print(f"{len(ours)} paragraphs: log-likelihoods differ by {worst:.1e} of their size at most")
assert worst < 1e-5, worst
right = sum(one["acc"] for one in samples["choices"])
print(f"choices: {right:g} of {len(samples['choices'])} right")
assert right >= 3 and len(samples["continued"]) == 4
PY
kill "$server"
wait "$server" || fail "the server's end"
