// Node's clients against a running server: node clients.mjs URL KEY MODEL EMBEDDER. Prints what failed; exit 1 if anything did.
import OpenAI from 'openai';
import { embedMany, generateText, streamText, tool } from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { z } from 'zod';

const [url, key, model, embedder] = process.argv.slice(2);
let passed = 0;
const failures = [];
const check = (condition, what) => {
  if (condition) passed++;
  else failures.push(what);
};
const question = 'What is the capital of France? Answer in one word.';
const messages = [{ role: 'user', content: question }];
const tide = { type: 'object', properties: { harbour: { type: 'string' } }, required: ['harbour'] };

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const whole = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 20 });
const text = whole.choices[0].message.content;
check(text.includes('Paris'), `openai: an answer: ${text}`);
const runner = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 20, stream_options: { include_usage: true } });
const final = await runner.finalChatCompletion();
check(final.choices[0].message.content === text, "openai: the stream helper sees the same");
check(final.usage?.completion_tokens === whole.usage.completion_tokens, 'openai: and the usage');
const response = await client.responses.create({ model, input: question, temperature: 0, max_output_tokens: 20 });
check(response.output_text === text, `openai: responses say the same: ${response.output_text}`);
let streamed = '';
for await (const event of client.responses.stream({ model, input: question, temperature: 0, max_output_tokens: 20 })) {
  if (event.type === 'response.output_text.delta') streamed += event.delta;
}
check(streamed === text, 'openai: responses streamed');
const called = await client.chat.completions.create({
  model, messages, temperature: 0, max_tokens: 60, tool_choice: { type: 'function', function: { name: 'get_tide' } },
  tools: [{ type: 'function', function: { name: 'get_tide', description: 'Tells the tide.', parameters: tide } }],
});
check(called.choices[0].message.tool_calls?.[0]?.function.name === 'get_tide', 'openai: a named tool is called');
const refused = await client.chat.completions.create({ model: 'nobody', messages }).catch((error) => error);
check(refused.status === 404 && refused.code === 'model_not_found', 'openai: an unknown model is a 404 by code');

for (const [name, provider] of [
  ['ai, responses', createOpenAI({ baseURL: `${url}/v1`, apiKey: key })(model)],
  ['ai, chat', createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).chat(model)],
  ['ai, compatible', createOpenAICompatible({ name: 'bakestone', baseURL: `${url}/v1`, apiKey: key, includeUsage: true })(model)],
]) {
  const ask = { model: provider, prompt: question, temperature: 0, maxOutputTokens: 20, maxRetries: 0 };
  const one = await generateText(ask);
  check(one.text === text && one.finishReason === 'stop', `${name}: ${one.text} ${one.finishReason}`);
  check(one.usage.outputTokens === whole.usage.completion_tokens, `${name}: usage ${JSON.stringify(one.usage)}`);
  const stream = streamText(ask);
  let pieces = '';
  for await (const piece of stream.textStream) pieces += piece;
  check(pieces === text && (await stream.finishReason) === 'stop', `${name}: streamed: ${pieces}`);
  const offered = await generateText({ ...ask, tools: { get_tide: tool({ description: 'Tells the tide.', inputSchema: z.object({ harbour: z.string() }) }) } });
  check(['stop', 'tool-calls', 'length'].includes(offered.finishReason), `${name}: tools: ${offered.finishReason}`);
  const wrong = await generateText({ ...ask, maxOutputTokens: 1000000 }).catch((error) => error);
  check(wrong.statusCode === 400, `${name}: too long for the context: ${wrong.statusCode}`);
}

const texts = ['the tide is high', 'Où est-ce ?'];
const numbers = await client.embeddings.create({ model: embedder, input: texts, encoding_format: 'float' });
const embedded = await client.embeddings.create({ model: embedder, input: texts });  // asks for base64
const vectors = numbers.data.map((one) => one.embedding);
check(JSON.stringify(embedded.data.map((one) => Array.from(one.embedding))) === JSON.stringify(vectors), 'openai: embeddings are the same in both forms');
const many = await embedMany({ model: createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).textEmbeddingModel(embedder), values: texts, maxRetries: 0 });
check(JSON.stringify(many.embeddings) === JSON.stringify(vectors), 'ai: the same vectors');

failures.forEach((what) => console.error(`FAILED: ${what}`));
console.log(`${passed} checks passed, ${failures.length} failed`);
process.exit(failures.length ? 1 : 0);
