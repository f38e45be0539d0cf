// What the openai package makes of the service: `node openai_client.mjs SCENARIO BASE_URL IMAGE_URL` prints JSON.
import OpenAI, { APIError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [scenario, baseURL, imageURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const { id: model } = (await client.models.list()).data[0];
const messages = [{ role: "user", content: "x" }];
const shape = z.object({
  colour: z.enum(["red", "green", "blue", "orange"]),
  name: z.enum(["star", "triangle", "circle", "square"]),
  is_large: z.boolean(),
});

function told(error) {
  const { status, type, code, param, message, requestID } = error;
  return { isAPIError: error instanceof APIError, name: error.constructor.name, status, type, code, param, message, requestID };
}

async function caught(promise) {
  return promise.then(() => null, told);
}

const scenarios = {
  async unary() {
    const { data, response, request_id } = await client.chat.completions
      .create({ model, messages, n: 2, logprobs: true, top_logprobs: 1 })
      .withResponse();
    return { completion: data, requestID: request_id, status: response.status };
  },

  async image() {
    const content = [
      { type: "image_url", image_url: { url: imageURL, detail: "low" } },
      { type: "text", text: "Which?" },
    ];
    return client.chat.completions.create({ model, messages: [{ role: "user", content }] });
  },

  async greedy() {
    const content = [
      { type: "image_url", image_url: { url: imageURL } },
      { type: "text", text: "Where is the red star?" },
    ];
    const stream = client.chat.completions.stream({
      model,
      messages: [{ role: "user", content }],
      temperature: 0,
      max_tokens: 16,
      stream_options: { include_usage: true },
    });
    const { choices, usage } = await stream.finalChatCompletion();
    return { text: choices[0].message.content, promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens };
  },

  async parse() {
    const content = [
      { type: "image_url", image_url: { url: imageURL } },
      { type: "text", text: "What is in the middle?" },
    ];
    const body = { model, messages: [{ role: "user", content }], response_format: zodResponseFormat(shape, "shape") };
    const whole = await client.chat.completions.parse(body);
    const streamed = await client.chat.completions.stream(body).finalChatCompletion();
    return [whole, streamed].map(({ choices }) => choices[0].message.parsed);
  },

  async stream() {
    const stream = await client.chat.completions.create({
      model,
      messages,
      n: 2,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = ["", ""];
    const finishReasons = [];
    let usage = null;
    for await (const chunk of stream) {
      for (const choice of chunk.choices) {
        texts[choice.index] += choice.delta.content ?? "";
        if (choice.finish_reason) finishReasons.push(choice.finish_reason);
      }
      usage = chunk.usage ?? usage;
    }
    return { texts, finishReasons, usage };
  },

  async helper() {
    const runner = client.chat.completions.stream({ model, messages, logprobs: true });
    let text = "";
    runner.on("content.delta", ({ delta }) => (text += delta));
    const completion = await runner.finalChatCompletion();
    return { text, completion };
  },

  async completion() {
    const body = { model, prompt: ["x", "y"], logprobs: 1 };
    const whole = await client.completions.create(body);
    const texts = ["", ""];
    for await (const chunk of await client.completions.create({ ...body, stream: true })) {
      for (const choice of chunk.choices) texts[choice.index] += choice.text;
    }
    return { whole, texts };
  },

  async response() {
    const content = [
      { type: "input_image", image_url: imageURL, detail: "low" },
      { type: "input_text", text: "Which?" },
    ];
    const body = { model, input: [{ role: "user", content }] };
    const whole = await client.responses.create(body);
    const stream = client.responses.stream(body);
    let text = "";
    stream.on("response.output_text.delta", ({ delta }) => (text += delta));
    const gathered = await stream.finalResponse();
    return { whole: whole.output_text, text, gathered: gathered.output_text, status: gathered.status, usage: gathered.usage };
  },

  async errors() {
    return [
      await caught(client.chat.completions.create({ model, messages, temperature: 3 })),
      await caught(client.chat.completions.create({ model: "gpt-9", messages })),
      await caught(client.chat.completions.create({ model, messages, stream: true, surprise: 1 })),
      await caught(client.models.retrieve("no/such")),
    ];
  },

  async retrieve() {
    return client.models.retrieve(model);
  },

  async overloaded() {
    const counts = [];
    const patient = client.withOptions({
      maxRetries: 2,
      fetch(url, init) {
        counts.push(new Headers(init.headers).get("x-stainless-retry-count"));
        return fetch(url, init);
      },
    });
    return { error: await caught(patient.chat.completions.create({ model, messages })), counts };
  },

  async failure() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    let text = "";
    const error = await caught(
      (async () => {
        for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
      })(),
    );
    return { text, error };
  },

  async abort() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 100_000, stream: true });
    let chunks = 0;
    for await (const _ of stream) {
      chunks += 1;
      if (chunks === 3) stream.controller.abort();
    }
    return { chunks };
  },

  async timeout() {
    return caught(client.chat.completions.create({ model, messages, max_tokens: 100_000 }, { timeout: 300 }));
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
