#!/usr/bin/env node
// Does llama.cpp compute the golden models of tests/data/families/ as transformers does? Loads each GGUF file
// with a made-up tokenizer (the goldens have none) and compares logits, of encoders the mean of their rows, over the
// golden prompt, with keys and values in f32. Families that it does not load are listed with what it says.
//   npm install --omit=optional node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
// then, where it is installed:
//   node check_llamacpp_families.mjs [--usual] FOLDER [FAMILY...]
// FOLDER has FAMILY/model.gguf and FAMILY/golden.safetensors; --usual: what check_export.py wrote.
// Exit 1 where a family is not loaded or differs by more than the limit, but for those in KNOWN.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const LIMIT = 1e-3;
// It takes GELU's values from a table in f16.
const GELU_LIMIT = 5e-2;
const GELU = ["gemma", "gemma2", "gemma3", "gemma4", "starcoder2"];  // architectures
// What llama.cpp computes otherwise, or does not load, of the golden models: their settings are chosen so that each
// shows. `usual` folders (check_export.py) have settings that it knows, and no exception.
const KNOWN = {
    "mistral": "it has no window in this architecture", "starcoder2": "it has no window in this architecture",
    "phi3": "it has no window in this architecture",
    "gemma2": "it takes the scale of queries by the model's size", "gemma3_text": "it takes the scale of queries by the model's size",
    "deepseek_v3": "it takes the model's epsilon for the norms of latents",
    "glm4_moe_lite": "it takes the model's epsilon for the norms of latents",
    "deepseek_v2": "it wants a latent of queries in a model of this size",
    "olmo3": "it takes the usual ramp of YaRN", "rwkv7": "it takes a constant for the epsilon of the norm of heads",
    "bert": "the file lacks its number of token types", "roberta": "the file lacks its number of token types",
    "xlm-roberta": "the file lacks its number of token types", "nomic_bert": "the file lacks its number of token types",
    "gpt_oss": "the file lacks the width of an expert", "qwen3_5_text": "the file lacks the sections of positions",
    "qwen3_5_moe_text": "the file lacks the sections of positions",
    "gemma3_text+use_bidirectional_attention": "the file lacks the sizes of dense layers"
};
const LENGTH = 44;

const usual = process.argv[2] === "--usual";
const [folder, ...chosen] = process.argv.slice(usual ? 3 : 2);
if (folder === undefined) {
    console.error("usage: check_llamacpp_families.mjs [--usual] FOLDER [FAMILY...]");
    process.exit(2);
}
const entry = createRequire(path.join(process.cwd(), "x.js")).resolve("node-llama-cpp");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry).href);

const align = n => Math.ceil(n / 32) * 32;

// ---- GGUF: keys are copied as they are, further ones added ----

function readHeader(bytes) {
    let at = 8;
    const u32 = () => (at += 4, bytes.readUInt32LE(at - 4));
    const u64 = () => (at += 8, Number(bytes.readBigUInt64LE(at - 8)));
    const string = () => {
        const length = u64();
        at += length;
        return bytes.toString("utf8", at - length, at);
    };
    const sizes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
    const value = type => {
        const begin = at;
        if (type === 8) return string();
        if (type === 9) {
            const element = u32(), count = u64();
            return Array.from({length: count}, () => value(element));
        }
        at += sizes[type];
        return type === 4 ? bytes.readUInt32LE(begin) : type === 6 ? bytes.readFloatLE(begin) : bytes[begin];
    };
    const tensors = u64(), count = u64(), keysBegin = at, keys = new Map();
    for (let i = 0; i < count; i++) keys.set(string(), value(u32()));
    const keysEnd = at, names = [];
    for (let i = 0; i < tensors; i++) {
        const name = string(), shape = Array.from({length: u32()}, u64);
        names.push({name, shape, type: u32(), offset: u64()});
    }
    return {keys, count, keysBegin, keysEnd, data: align(at), names};
}

// llama.cpp rounds the activations to a product's type: with all tensors in f32 it does not.
function toF32(bytes, tensor) {
    const count = tensor.shape.reduce((a, b) => a * b, 1);
    if (tensor.type === 0) return bytes.subarray(tensor.offset, tensor.offset + 4 * count);
    const values = new Float32Array(count), bits = new Uint32Array(values.buffer);
    if (tensor.type === 30) {
        for (let i = 0; i < count; i++) bits[i] = bytes.readUInt16LE(tensor.offset + 2 * i) << 16;
    } else if (tensor.type === 39) {  // MXFP4
        const magnitudes = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
        for (let i = 0; i < count; i++) {
            const block = tensor.offset + 17 * Math.floor(i / 32), within = i % 32;
            const code = bytes[block + 1 + within % 16] >> (within < 16 ? 0 : 4) & 15;
            values[i] = magnitudes[code & 7] * (code & 8 ? -1 : 1) * 2 ** (bytes[block] - 127);
        }
    } else {
        throw new Error(`${tensor.name}: type ${tensor.type}`);
    }
    return Buffer.from(values.buffer);
}

class Keys {
    parts = [];
    count = 0;
    u32(n) { const b = Buffer.alloc(4); b.writeUInt32LE(n); this.parts.push(b); return this; }
    f32(n) { const b = Buffer.alloc(4); b.writeFloatLE(n); this.parts.push(b); return this; }
    u64(n) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); this.parts.push(b); return this; }
    string(s) { const b = Buffer.from(s); this.u64(b.length); this.parts.push(b); return this; }
    key(name, type) { this.count++; return this.string(name).u32(type); }
}

// The golden file with all tensors in f32 and, where it has none, a tokenizer of as many tokens as the model has.
function prepared(bytes, header, out) {
    const keys = new Keys();
    if (!header.keys.has("tokenizer.ggml.model")) addTokenizer(header, keys);
    const counts = Buffer.alloc(16);
    counts.writeBigUInt64LE(BigInt(header.names.length), 0);
    counts.writeBigUInt64LE(BigInt(header.count + keys.count), 8);
    const infos = new Keys(), parts = [];
    let offset = 0;
    for (const tensor of header.names) {
        infos.string(tensor.name).u32(tensor.shape.length);
        for (const size of tensor.shape) infos.u64(size);
        infos.u32(0).u64(offset);
        const values = toF32(bytes, {...tensor, offset: header.data + tensor.offset});
        parts.push(values, Buffer.alloc(align(values.length) - values.length));
        offset += align(values.length);
    }
    const head = Buffer.concat([bytes.subarray(0, 8), counts, bytes.subarray(header.keysBegin, header.keysEnd),
        ...keys.parts, ...infos.parts]);
    fs.writeFileSync(out, Buffer.concat([head, Buffer.alloc(align(head.length) - head.length), ...parts]));
    return out;
}

function addTokenizer(header, keys) {
    const vocabulary = header.names.find(tensor => tensor.name === "token_embd.weight").shape[1];
    const tokens = Array.from({length: vocabulary}, (_, i) => ["<pad>", "<s>", "</s>", "\u010a"][i] ?? `t${i}`);
    keys.key("tokenizer.ggml.model", 8).string("gpt2");
    keys.key("tokenizer.ggml.pre", 8).string("gpt-2");
    keys.key("tokenizer.ggml.merges", 9).u32(8).u64(1).string("t t");
    keys.key("tokenizer.ggml.tokens", 9).u32(8).u64(vocabulary);
    for (const token of tokens) keys.string(token);
    keys.key("tokenizer.ggml.token_type", 9).u32(5).u64(vocabulary);
    tokens.forEach((_, i) => keys.u32(i < 3 ? 3 : 1));
    for (const [name, id] of [["bos", 1], ["eos", 2]]) keys.key(`tokenizer.ggml.${name}_token_id`, 4).u32(id);
}

function readGolden(file) {
    const bytes = fs.readFileSync(file), length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
    const part = (name, Type) => {
        const [begin, end] = header[name].data_offsets;
        return new Type(bytes.buffer.slice(bytes.byteOffset + 8 + length + begin, bytes.byteOffset + 8 + length + end));
    };
    return {tokens: [...part("tokens", Int32Array)], values: part("logits", Float32Array)};
}

// ---- llama.cpp ----

const messages = [];
const llama = await getLlama({gpu: false, build: "never", maxThreads: 2, logLevel: LlamaLogLevel.error,
    logger: (level, message) => messages.push(message.trim())});

async function differenceOfLogits(model, golden, vocabulary) {
    const context = await model.createContext({contextSize: 128, threads: 2, flashAttention: false,
        experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"});
    const ids = Array.from({length: vocabulary}, (_, i) => i);
    const results = await context.getSequence().controlledEvaluate(golden.tokens.map(token => [token, {
        generateNext: {logits: {filter: {tokens: ids}}, options: {temperature: 1, topK: 0, topP: 1, minP: 0}}
    }]));
    let most = 0;
    results.forEach((result, i) => ids.forEach(id => {
        const difference = Math.abs(result.next.logits.get(id) - golden.values[i * vocabulary + id]);
        most = Math.max(most, Number.isFinite(difference) ? difference : Infinity);
    }));
    await context.dispose();
    return most;
}

async function differenceOfVectors(model, golden, width) {
    const context = await model.createEmbeddingContext({contextSize: 128, threads: 2});
    const {vector} = await context.getEmbeddingFor(golden.tokens);
    const mean = Array.from({length: width}, (_, c) => {
        let sum = 0;
        for (let i = c; i < golden.values.length; i += width) sum += golden.values[i];
        return sum;
    });
    const norm = Math.hypot(...mean), own = Math.hypot(...vector);
    await context.dispose();
    return Math.max(...mean.map((x, i) => Math.abs(x / norm - vector[i] / own)));
}

const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "llamacpp-families-"));
let failed = 0;
for (const family of fs.readdirSync(folder).sort()) {
    const file = path.join(folder, family, "model.gguf");
    if (!fs.existsSync(file) || (chosen.length > 0 && !chosen.includes(family))) continue;
    const golden = readGolden(path.join(folder, family, "golden.safetensors"));
    const width = golden.values.length / LENGTH;
    const bytes = fs.readFileSync(file), header = readHeader(bytes);
    const encoder = header.keys.has(`${header.keys.get("general.architecture")}.pooling_type`);
    messages.length = 0;
    let line, ok = false;
    try {
        const modelPath = prepared(bytes, header, path.join(temporary, `${family}.gguf`));
        const model = await llama.loadModel({modelPath, gpuLayers: 0});
        const difference = await (encoder ? differenceOfVectors : differenceOfLogits)(model, golden, width);
        const gelu = GELU.includes(header.keys.get("general.architecture"));
        ok = difference <= (gelu ? GELU_LIMIT : LIMIT);
        line = `${ok ? "ok" : "differs"}  ${encoder ? "vectors" : "logits"} differ by at most ${difference.toExponential(2)}`;
        await model.dispose();
    } catch (error) {
        await new Promise(done => setTimeout(done, 50));  // for its messages
        line = `--  not loaded: ${messages.filter(text => /error|unknown|missing|key not found|wrong/i.test(text))[0] ?? error.message}`;
    }
    const known = usual ? undefined : KNOWN[family];
    failed += !ok && known === undefined;
    console.log(`${family.padEnd(22)} ${line}${ok ? "" : known ? ` (known: ${known})` : "  FAILED"}`);
}
fs.rmSync(temporary, {recursive: true});
process.exit(failed > 0 ? 1 : 0);
