import { describe, expect, it } from "vitest";
import { parseEvent } from "../src/model/protocol";

const parse = (event: unknown) => parseEvent(JSON.stringify(event));

describe("parseEvent", () => {
  it("reads the end of a response with usage and timing", () => {
    const event = parse({
      type: "response.completed",
      sequence_number: 9,
      stream_id: "lane",
      response: {
        id: "r",
        usage: {
          input_tokens: 40,
          input_tokens_details: { cached_tokens: 32 },
          output_tokens: 7,
          x_timing: { ttft_ms: 12.5, tokens_per_s: 80 },
        },
      },
    });
    expect(event).toEqual({
      type: "ended",
      streamId: "lane",
      sequence: 9,
      ending: {
        kind: "completed",
        reason: null,
        usage: { inputTokens: 40, cachedTokens: 32, outputTokens: 7 },
        timing: { ttftMs: 12.5, tokensPerS: 80 },
        error: null,
      },
    });
  });

  it("reads the cache report", () => {
    expect(
      parse({
        type: "x.cache",
        prompt_tokens: 10,
        cached_tokens: 8,
        by: { system: 6, history: 0, shared: 2 },
        est_ttft_saved_ms: 3.5,
      }),
    ).toEqual({
      type: "cache",
      streamId: null,
      sequence: null,
      cache: { promptTokens: 10, cachedTokens: 8, by: { system: 6, history: 0, shared: 2 }, savedMs: 3.5 },
    });
  });

  it("keeps the code and the message of an error", () => {
    const event = parse({
      type: "error",
      status: 429,
      error: { type: "t", code: "rate_limit_exceeded", message: "slow down", param: null },
    });
    expect(event).toEqual({
      type: "error",
      streamId: null,
      error: { status: 429, code: "rate_limit_exceeded", message: "slow down" },
    });
  });

  it("reads what the server says of itself", () => {
    expect(parse({ type: "x.session", tenant: "alda", model: "m", limits: { max_context_tokens: 4096 } })).toEqual({
      type: "session",
      model: "m",
      tenant: "alda",
      maxContextTokens: 4096,
    });
  });

  it("counts those before in the queue from a position that counts itself", () => {
    expect(parse({ type: "response.queued", response: { id: "r" }, x_position: 3 })).toMatchObject({
      type: "queued",
      responseId: "r",
      ahead: 2,
    });
    expect(parse({ type: "response.queued" })).toMatchObject({ responseId: null, ahead: null });
  });

  it("gives a failed response its error", () => {
    const event = parse({ type: "response.failed", response: { error: { code: "engine_error", message: "gone" } } });
    expect(event).toMatchObject({ type: "ended", ending: { kind: "failed", error: { code: "engine_error" } } });
  });

  it.each([["not json"], ["[]"], ["null"], ["3"], ['{"type":"response.in_progress"}'], ["{}"]])(
    "ignores %s",
    (frame) => {
      expect(parseEvent(frame)).toBeNull();
    },
  );

  it("turns fields of the wrong type into defaults", () => {
    expect(
      parse({ type: "x.cache", prompt_tokens: "many", cached_tokens: -4, by: [], est_ttft_saved_ms: null }),
    ).toMatchObject({
      cache: { promptTokens: 0, cachedTokens: 0, by: { system: 0, history: 0, shared: 0 }, savedMs: 0 },
    });
    expect(parse({ type: "response.completed" })).toMatchObject({ ending: { usage: null, timing: null } });
  });
});
