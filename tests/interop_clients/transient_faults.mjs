// The requests of transient_faults.py with OpenAI's SDK for Node: transient_faults.mjs URL_OF_UPSTREAM URL_OF_SERVE. Reads the
// cases from stdin; prints for each of them the errors of the direct request and of the one through serve.
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { VERSION } from "openai/version";

const [, , upstream, serve] = process.argv;
const { cases, answer } = JSON.parse(readFileSync(0, "utf8"));

// Returns an error text, or null for the right answer.
async function ask(baseURL, model, stream) {
  try {
    const client = new OpenAI({ baseURL, apiKey: "sk-any", timeout: 60_000 });
    const reply = await client.chat.completions.create({ model, stream, messages: [{ role: "user", content: "hello" }] });
    let text = "";
    if (stream) {
      for await (const chunk of reply) text += chunk.choices[0]?.delta?.content ?? "";
    } else {
      text = reply.choices[0].message.content;
    }
    return text === answer ? null : `answer ${JSON.stringify(text)}`;
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`;
  }
}

const errors = await Promise.all(cases.map((name) => {
  const stream = name.endsWith("-stream");
  return Promise.all([ask(`${upstream}/node-direct/${name}/v1`, "m", stream), ask(serve, `node-${name}`, stream)]);
}));
console.log(JSON.stringify({ name: `openai ${VERSION} (Node)`, errors }));
