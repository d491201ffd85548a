#!/usr/bin/env node
// Does llama.cpp answer with an exported adapter as bakestone does? Takes questions that bakestone answered
// rightly with the adapter, asks them greedily of llama.cpp with the adapter as LoRA and without, with the
// model's own chat template, and prints one JSON object.
//   npm install --omit=optional node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
// then, where they are installed:
//   bakestone eval MODEL --adapter ADAPTER.gguf --questions heldout.jsonl --max-tokens 48 --json >EVALUATION.json
//   node check_llamacpp_adapter.mjs MODEL.gguf ADAPTER.gguf heldout.jsonl EVALUATION.json [questions [threads]]
// Exit 1 unless with the adapter 3/4 of the answers or more have the question's key, and without it 1/4 or
// fewer. Word for word equal answers are counted only: llama.cpp rounds activations in another way.
import fs from "node:fs";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const MAX_TOKENS = 48;
const [modelPath, adapterPath, questionsPath, evaluationPath, number = "8", threads = "2"] = process.argv.slice(2);
if (evaluationPath === undefined) {
    console.error("usage: check_llamacpp_adapter.mjs MODEL.gguf ADAPTER.gguf QUESTIONS.jsonl EVALUATION.json " +
        "[questions [threads]]");
    process.exit(2);
}
const here = createRequire(path.join(process.cwd(), "x.js"));
const library = here.resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(library).href);
const {Template} = await import(pathToFileURL(createRequire(library).resolve("@huggingface/jinja")).href);

// Evenly spread over the questions that bakestone answered rightly.
function chosenQuestions(wanted) {
    const lines = fs.readFileSync(questionsPath, "utf8").split("\n").filter(line => line.trim() !== "");
    const byId = new Map(lines.map(line => JSON.parse(line)).map(question => [question.id, question]));
    const right = JSON.parse(fs.readFileSync(evaluationPath, "utf8")).answers.filter(answer => answer.right);
    if (right.length < wanted) {
        throw new Error(`${evaluationPath}: expected at least ${wanted} right answers, found ${right.length}`);
    }
    return Array.from({length: wanted}, (_, i) => right[Math.floor(i * right.length / wanted)]).map(answer => {
        if (!byId.has(answer.id)) throw new Error(`${questionsPath}: expected the question '${answer.id}'`);
        return {...byId.get(answer.id), bakestone: answer.answer.trim()};
    });
}

function hasKey(text, key) {
    const fold = value => value.toLowerCase().replace(/\s+/g, " ");
    const escaped = fold(key).replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "u").test(fold(text));
}

const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath, gpuLayers: 0});
const template = new Template(model.fileInfo.metadata.tokenizer.chat_template);

async function answers(questions, options) {
    const context = await model.createContext({contextSize: 1024, threads: Number(threads), ...options});
    const sequence = context.getSequence();
    const texts = [];
    for (const {messages} of questions) {
        await sequence.clearHistory();
        const prompt = model.tokenize(template.render({messages, add_generation_prompt: true}), true);
        const tokens = [];
        for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            if (model.isEogToken(token) || tokens.push(token) === MAX_TOKENS) break;
        }
        texts.push(model.detokenize(tokens).trim());
    }
    await context.dispose();
    return texts;
}

const questions = chosenQuestions(Number(number));
const withAdapter = await answers(questions, {lora: adapterPath});
const without = await answers(questions, {});
const results = questions.map((question, i) => ({
    id: question.id, key: question.key, bakestone: question.bakestone, llamacpp: withAdapter[i],
    llamacpp_without_adapter: without[i]
}));
const count = test => results.filter(test).length;
const summary = {
    questions: results.length,
    key_with_adapter: count(result => hasKey(result.llamacpp, result.key)),
    key_without_adapter: count(result => hasKey(result.llamacpp_without_adapter, result.key)),
    equal_answers: count(result => result.llamacpp === result.bakestone)
};
console.log(JSON.stringify({...summary, results}, null, 2));
const passed = summary.key_with_adapter >= 0.75 * results.length && summary.key_without_adapter <= 0.25 * results.length;
if (!passed) console.error("check_llamacpp_adapter: expected most keys with the adapter and few without it");
process.exit(passed ? 0 : 1);
