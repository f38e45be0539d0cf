// What the Vercel AI SDK makes of the service: `node ai_sdk_client.mjs SCENARIO BASE_URL IMAGE_URL` prints JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, Output, RetryError, streamText, tool } from "ai";
import { z } from "zod";

const [scenario, baseURL, imageURL] = process.argv.slice(2);
const { id } = (await (await fetch(`${baseURL}/models`)).json()).data[0];
const model = createOpenAICompatible({
  name: "local",
  baseURL,
  includeUsage: true,
  supportsStructuredOutputs: true,
}).chatModel(id);
const shape = z.object({
  colour: z.enum(["red", "green", "blue", "orange"]),
  name: z.enum(["star", "triangle", "circle", "square"]),
  is_large: z.boolean(),
});

function told(error) {
  const { statusCode, isRetryable, message, data } = error;
  return { isAPICallError: APICallError.isInstance(error), statusCode, isRetryable, message, data };
}

async function caught(promise) {
  return promise.then(() => null, (error) => error);
}

async function gathered(stream) {
  const parts = [];
  for await (const part of stream.fullStream) parts.push(part);
  return {
    types: parts.map(({ type }) => type).filter((type, at, all) => type !== all[at - 1]),
    text: parts.map((part) => (part.type === "text-delta" ? part.text : "")).join(""),
    errors: parts.filter(({ type }) => type === "error").map(({ error }) => error.message ?? error),
    finish: parts.filter(({ type }) => type === "finish").map(({ finishReason, totalUsage }) => ({ finishReason, totalUsage }))[0],
  };
}

const quiet = () => {}; // errors of a stream are read from it

const get_weather = tool({
  description: "Tells the weather.",
  inputSchema: jsonSchema({
    $schema: "http://json-schema.org/draft-07/schema#",
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

const scenarios = {
  async tools() {
    const asked = { model, prompt: "x", tools: { get_weather }, toolChoice: "required" };
    const { text, finishReason, toolCalls, toolResults } = await generateText(asked);
    const { types } = await gathered(streamText(asked));
    const inputs = toolCalls.map(({ toolName, input }) => ({ toolName, input }));
    return { text, finishReason, inputs, outputs: toolResults.map(({ output }) => output), types };
  },

  async generate() {
    const { text, finishReason, usage, response } = await generateText({
      model,
      system: "Be brief.",
      prompt: "x",
      maxOutputTokens: 100,
      temperature: 0.5,
      seed: 7,
      stopSequences: ["never"],
    });
    return { text, finishReason, usage, modelId: response.modelId, id: response.id };
  },

  async image() {
    const content = [
      { type: "text", text: "Which?" },
      { type: "image", image: imageURL },
    ];
    const { text, usage } = await generateText({ model, messages: [{ role: "user", content }] });
    return { text, usage };
  },

  async greedy() {
    const content = [
      { type: "image", image: imageURL },
      { type: "text", text: "Where is the red star?" },
    ];
    const stream = streamText({ model, messages: [{ role: "user", content }], temperature: 0, maxOutputTokens: 16 });
    const { text, finish } = await gathered(stream);
    const { inputTokens, outputTokens } = finish.totalUsage;
    return { text, promptTokens: inputTokens, completionTokens: outputTokens };
  },

  async object() {
    const content = [
      { type: "image", image: imageURL },
      { type: "text", text: "What is in the middle?" },
    ];
    const messages = [{ role: "user", content }];
    const whole = await generateObject({ model, messages, schema: shape });
    const stream = streamText({ model, messages, output: Output.object({ schema: shape }) });
    let partials = 0;
    let last = null;
    for await (const partial of stream.partialOutputStream) {
      partials += 1;
      last = partial;
    }
    return { objects: [whole.object, last], partials };
  },

  async stream() {
    return gathered(streamText({ model, prompt: "x" }));
  },

  async failure() {
    return gathered(streamText({ model, prompt: "x", onError: quiet }));
  },

  async refused() {
    return told(await caught(generateText({ model, prompt: "x", temperature: 3 })));
  },

  async overloaded() {
    const error = await caught(generateText({ model, prompt: "x", maxRetries: 1 }));
    return { isRetryError: RetryError.isInstance(error), attempts: error.errors.length, last: told(error.lastError) };
  },

  async abort() {
    const controller = new AbortController();
    const stream = streamText({
      model,
      prompt: "x",
      maxOutputTokens: 100_000,
      abortSignal: controller.signal,
      onError: quiet,
    });
    const types = [];
    for await (const { type } of stream.fullStream) {
      types.push(type);
      if (type === "text-delta" && !controller.signal.aborted) controller.abort();
    }
    return { last: types.at(-1) };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
