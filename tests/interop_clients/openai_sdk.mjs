// Checks OpenAI's SDK for Node with mmchat serve: openai_sdk.mjs URL
import assert from "node:assert/strict";
import OpenAI, { APIError, BadRequestError, InternalServerError, NotFoundError } from "openai";
import { VERSION } from "openai/version";

const [, , url] = process.argv;
const name = `openai ${VERSION} (Node)`;
const client = new OpenAI({ baseURL: url, apiKey: "sk-of-the-clients" });
const HELLO = "Hello there, wörld! 你好 👋";
const user = (content) => [{ role: "user", content }];
const tool = { type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } };
const lines = [];
let failed = 0;

async function check(title, run) {
  try {
    await run();
    lines.push(`| ${name} | ${title} | ok |`);
  } catch (error) {
    failed += 1;
    lines.push(`| ${name} | ${title} | FAILED |`);
    console.error(title, error);
  }
}

async function metric(start) {
  const reply = await fetch(url.replace("/v1", "/metrics"), { headers: { authorization: "Bearer sk-of-the-clients" } });
  const text = await reply.text();
  return text.split("\n").filter((line) => line.startsWith(start)).reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

await check("chat", async () => {
  const { data, response } = await client.chat.completions.create({ model: "mock", messages: user("hello") }).withResponse();
  assert.equal(data.choices[0].message.content, HELLO);
  assert.equal(response.headers.get("x-mmchat-model"), "mock");
});

await check("stream, with usage if requested", async () => {
  const stream = await client.chat.completions.create({
    model: "mock", messages: user("hello"), stream: true, stream_options: { include_usage: true },
  });
  let text = "", usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, HELLO);
  assert.equal(usage.completion_tokens, 7);
});

await check("tools, streamed", async () => {
  const runner = client.chat.completions.stream({ model: "mock", messages: user("weather"), tools: [tool] });
  const final = await runner.finalChatCompletion();
  assert.deepEqual(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments), { city: "Paris" });
});

// The SDK's default encoding is base64, which aimock does not send.
await check("embeddings", async () => {
  const reply = await client.embeddings.create({ model: "embed", input: "embed me", encoding_format: "float" });
  assert.ok(reply.data[0].embedding.length > 0);
});

await check("errors by type, permanent ones without client retries", async () => {
  // The client repeats what may pass, as it would without the gateway.
  for (const [prompt, model, kind, code, requests] of [
    ["boom", "mock", InternalServerError, "server", 3],
    ["ctx", "mock", BadRequestError, "context_length_exceeded", 1],
    ["hello", "nobody", NotFoundError, "model_not_found", 1],
  ]) {
    const before = await metric("mmchat_requests_total");
    await assert.rejects(client.chat.completions.create({ model, messages: user(prompt) }), (error) => {
      assert.ok(error instanceof kind, `${prompt}: ${error.constructor.name}`);
      assert.equal(error.code, code);
      return true;
    });
    assert.equal((await metric("mmchat_requests_total")) - before, requests, `${prompt}: number of requests`);
  }
});

await check("an incomplete answer is an error", async () => {
  let text = "";
  await assert.rejects(async () => {
    for await (const chunk of await client.chat.completions.create({ model: "mock", messages: user("cutoff"), stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
  }, APIError);
  assert.ok(text.length > 0);
});

await check("closing a stream cancels the upstream request", async () => {
  const before = await metric("mmchat_client_disconnects_total");
  const stream = await client.chat.completions.create({ model: "count", messages: user("count"), stream: true });
  for await (const _ of stream) break;
  for (let turn = 0; turn < 200 && (await metric("mmchat_client_disconnects_total")) === before; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(await metric("mmchat_client_disconnects_total"), before + 1);
});

console.log(lines.join("\n"));
process.exit(failed ? 1 : 0);
