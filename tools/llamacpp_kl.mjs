#!/usr/bin/env node
// How far llama.cpp is from the golden logits: the same figures that tests/real_model_test.cc prints for
// this program (KL of the golden top 64 and the rest, top-1 agreement), over the same tokens.
//   npm install node-llama-cpp@3.22.1   (carries a prebuilt llama.cpp), then, where it is installed:
//   node llamacpp_kl.mjs MODEL.gguf GOLDENS.logits [threads [ADAPTER.gguf]]
// With an adapter, the goldens are those of check_peft_logits.py.
// The grammar of the goldens is in make_logits_goldens.py.
import fs from "node:fs";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const [modelPath, goldensPath, threads = "2", lora] = process.argv.slice(2);
if (goldensPath === undefined) {
    console.error("usage: llamacpp_kl.mjs MODEL.gguf GOLDENS.logits [threads [ADAPTER.gguf]]");
    process.exit(2);
}
const entry = createRequire(path.join(process.cwd(), "x.js")).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(entry).href);

function readGoldens(file) {
    const bytes = fs.readFileSync(file);
    let at = 0;
    const u32 = () => (at += 4, bytes.readUInt32LE(at - 4));
    const f32 = () => (at += 4, bytes.readFloatLE(at - 4));
    if (bytes.toString("latin1", 0, 8) !== "BKLOGITS") throw new Error(`${file}: not a .logits file`);
    at = 12;
    const top = u32();
    at += 32;
    return Array.from({length: u32()}, () => {
        const count = u32();
        const tokens = Array.from({length: count}, u32);
        const positions = Array.from({length: count}, () => ({
            logSumExp: f32(), ids: Array.from({length: top}, u32), logits: Array.from({length: top}, f32)
        }));
        return {tokens, positions};
    });
}

const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath, gpuLayers: 0});
const context = await model.createContext({contextSize: 2048, threads: Number(threads), lora});
const sequence = context.getSequence();
let count = 0, same = 0, sum = 0, largest = 0;
for (const text of readGoldens(goldensPath)) {
    await sequence.clearHistory();
    const results = await sequence.controlledEvaluate(text.tokens.map((token, i) => [token, {
        generateNext: {
            logits: {filter: {tokens: text.positions[i].ids, includeMax: true}},
            totalLogitWeight: true,
            options: {temperature: 1, topK: 0, topP: 1, minP: 0}
        }
    }]));
    results.forEach((result, i) => {
        const golden = text.positions[i], {logits, totalLogitWeight} = result.next;
        let best = -1, max = -Infinity;
        for (const [token, logit] of logits) if (logit > max) [best, max] = [token, logit];
        const logSumExp = max + Math.log(totalLogitWeight);
        let kl = 0, goldenRest = 1, rest = 1;
        golden.ids.forEach((id, j) => {
            const logP = golden.logits[j] - golden.logSumExp, logQ = logits.get(id) - logSumExp;
            kl += Math.exp(logP) * (logP - logQ);
            goldenRest -= Math.exp(logP);
            rest -= Math.exp(logQ);
        });
        if (goldenRest > 1e-9 && rest > 1e-9) kl += goldenRest * Math.log(goldenRest / rest);
        count += 1;
        same += best === golden.ids[0];
        sum += kl;
        largest = Math.max(largest, kl);
    });
}
console.log(`llama.cpp: ${count} positions, mean KL ${(sum / count).toFixed(5)} nats, largest ` +
    `${largest.toFixed(4)}, top-1 agreement ${(100 * same / count).toFixed(2)} %`);
process.exit(0);
