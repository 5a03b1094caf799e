// openai-node and the Vercel AI SDK: text, stream, tools, schema, errors.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const { MODEL, OPENAI_BASE_URL, OPENAI_API_KEY } = process.env;
const messages = [{ role: "user", content: "Write a long essay about rivers." }];
const client = new OpenAI({ maxRetries: 0 });

const whole = await client.chat.completions.create({ model: MODEL, messages });
assert.ok(whole.choices[0].message.content);
console.log("openai-node text");
let pieces = 0;
for await (const chunk of await client.chat.completions.create({ model: MODEL, messages, stream: true })) {
  pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
}
assert.ok(pieces > 5);
console.log("openai-node stream");
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const called = await client.chat.completions.create({ model: MODEL, messages, tools, tool_choice: "required" });
assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
console.log("openai-node tools");
await assert.rejects(client.chat.completions.create({ model: MODEL, messages: [] }), OpenAI.BadRequestError);
console.log("openai-node errors");

const provider = createOpenAICompatible({
  name: "gateway",
  baseURL: OPENAI_BASE_URL,
  apiKey: OPENAI_API_KEY,
  supportsStructuredOutputs: true,
});
const model = provider(MODEL);
assert.ok((await generateText({ model, prompt: messages[0].content, maxRetries: 0 })).text);
console.log("ai text");
const streamed = streamText({ model, prompt: messages[0].content, maxRetries: 0 });
let parts = 0;
for await (const part of streamed.textStream) parts += part ? 1 : 0;
assert.ok(parts > 5);
assert.ok((await streamed.usage).outputTokens > 0 || (await streamed.usage).outputTokens === undefined);
console.log("ai stream");
const schema = z.object({ n: z.number().int() });
assert.equal(typeof (await generateObject({ model, schema, prompt: "A number", maxRetries: 0 })).object.n, "number");
console.log("ai schema");
const get_weather = tool({ description: "The weather", inputSchema: z.object({ city: z.string() }) });
const asked = await generateText({
  model, prompt: "Call get_weather", tools: { get_weather }, toolChoice: "required", maxRetries: 0,
});
assert.equal(asked.toolCalls[0].toolName, "get_weather");
console.log("ai tools");
await assert.rejects(generateText({ model, prompt: "x", maxOutputTokens: -1, maxRetries: 0 }));
console.log("ai errors");
