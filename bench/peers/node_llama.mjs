#!/usr/bin/env node
// One figure of llama.cpp as node-llama-cpp carries it; run where that package is installed:
//   node node_llama.mjs MODEL.gguf THREADS prefill|decode TOKENS
// Prints {"tokens_per_second": ...}. Tokens are drawn from a fixed sequence; a first pass warms up.
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const [modelPath, threads, kind, number] = process.argv.slice(2);
if (number === undefined || !["prefill", "decode"].includes(kind)) {
    console.error("usage: node_llama.mjs MODEL.gguf THREADS prefill|decode TOKENS");
    process.exit(2);
}
const entry = createRequire(path.join(process.cwd(), "x.js")).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(entry).href);
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath, gpuLayers: 0});
const count = Number(number);
const context = await model.createContext({contextSize: count + 16, batchSize: 512, threads: Number(threads)});
const sequence = context.getSequence();
const tokens = Array.from({length: count + 1}, (_, i) => 3 + (i * 7919) % 200);

async function prefill() {
    await sequence.clearHistory();
    await sequence.controlledEvaluate(tokens.slice(0, count).map(
        (token, i) => i + 1 < count ? token : [token, {generateNext: {token: true}}]));
}

async function decode(steps) {
    await sequence.clearHistory();
    for (let i = 0; i < steps; ++i) {
        await sequence.controlledEvaluate([[tokens[i], {generateNext: {token: true}}]]);
    }
}

const measured = kind === "prefill" ? prefill : () => decode(count);
await (kind === "prefill" ? prefill() : decode(Math.min(count, 4)));
const start = process.hrtime.bigint();
await measured();
const seconds = Number(process.hrtime.bigint() - start) * 1e-9;
console.log(JSON.stringify({tokens_per_second: count / seconds}));
process.exit(0);
