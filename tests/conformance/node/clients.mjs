// OpenAI's SDK for Node, unmodified: the WebSocket client of the Responses API, and chat completions.
// `node clients.mjs BASE_URL INSTRUCTIONS QUESTION` prints what it saw as one line of JSON.
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

const [baseURL, instructions, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const seen = { model };

async function turn(socket, fields) {
  const events = socket.stream(); // leaving a loop over it ends it, so each turn has its own
  socket.send({ type: "response.create", model, temperature: 0, ...fields });
  let text = "";
  const kinds = [];
  for await (const event of events) {
    if (event.type === "error") throw event.error;
    if (event.type !== "message") continue;
    const message = event.message;
    kinds.push(message.type);
    if (message.type === "response.output_text.delta") text += message.delta;
    if (message.type === "response.completed") return { text, kinds, response: message.response };
    if (["response.failed", "response.incomplete"].includes(message.type)) throw new Error(JSON.stringify(message));
  }
  throw new Error("the socket closed");
}

const socket = new ResponsesWS(client);
const first = await turn(socket, {
  instructions,
  input: question,
  include: ["message.output_text.logprobs"],
  top_logprobs: 2,
});
const second = await turn(socket, { input: question, previous_response_id: first.response.id });
socket.close({ code: 1000, reason: "done" });
seen.first = { text: first.text, kinds: first.kinds, usage: first.response.usage };
seen.logprobs = first.response.output[0].content[0].logprobs;
seen.second = { usage: second.response.usage, previous: second.response.previous_response_id === first.response.id };

const messages = [
  { role: "system", content: instructions },
  { role: "user", content: question },
];
const whole = await client.chat.completions.create({ model, messages, temperature: 0, n: 2, logprobs: true, top_logprobs: 2 });
seen.whole = whole.choices.map((choice) => choice.message.content);
seen.chatLogprobs = whole.choices[0].logprobs.content.length;
const stream = await client.chat.completions.create({
  model,
  messages,
  temperature: 0,
  stream: true,
  stream_options: { include_usage: true },
});
seen.streamed = "";
for await (const chunk of stream) {
  seen.streamed += chunk.choices[0]?.delta.content ?? "";
  seen.usage = chunk.usage ?? seen.usage;
}
try {
  await client.chat.completions.create({ model: "another", messages });
} catch (error) {
  seen.error = { name: error.constructor.name, status: error.status, code: error.code };
}
console.log(JSON.stringify(seen));
