import { describe, expect, it } from "vitest";
import { lost, OPENED, Talk, usage } from "./talk";

const BAKERY = {
  id: "bakery",
  name: "Bakery",
  description: "",
  text: "Croissants cost 2.",
  questions: [],
  versions: null,
  texts: {},
};
const message = (role: string, content: string) => ({ type: "message", role, content });

function opened(): Talk {
  return new Talk().do({ type: "prompts", prompts: [BAKERY] }, OPENED);
}

describe("a first turn", () => {
  it("names the registered prompt and sends the question", () => {
    const talk = opened().ask("  How much? ");
    expect(talk.sent()).toEqual([
      { type: "response.create", stream_id: "c0", input: [message("user", "How much?")], prompt: { id: "bakery" } },
    ]);
    expect(talk.last().status).toBe("waiting");
  });

  it("sends one's own text as instructions, and nothing where it is empty", () => {
    const own = (text: string) =>
      opened()
        .do({ type: "choose", system: { kind: "own", text } })
        .ask("Hi")
        .sent()[0];
    expect(own("Answer briefly.")).toMatchObject({ instructions: "Answer briefly." });
    expect(own("  ")).not.toHaveProperty("instructions");
    expect(own("  ")).not.toHaveProperty("prompt");
  });

  it("waits for the socket and goes out when it opens", () => {
    const talk = new Talk().ask("Hi");
    expect(talk.sent()).toEqual([]);
    expect(talk.last().status).toBe("queued");
    expect(talk.do(OPENED).sent()).toHaveLength(1);
    expect(talk.last().status).toBe("waiting");
  });

  it("grows with the deltas and takes in the figures", () => {
    const talk = opened().ask("Hi");
    talk
      .server({ type: "response.created", response: { id: "r1" } })
      .server({
        type: "x.cache",
        prompt_tokens: 100,
        cached_tokens: 96,
        by: { system: 96, history: 0, shared: 0 },
        est_ttft_saved_ms: 40,
      })
      .server({ type: "response.output_text.delta", delta: "Two " })
      .server({ type: "response.output_text.delta", delta: "dollars." });
    expect(talk.last()).toMatchObject({ answer: "Two dollars.", status: "streaming", cache: { cachedTokens: 96 } });
    talk.server({ type: "response.completed", response: { id: "r1", usage: usage(100, 96, 2) } });
    expect(talk.last()).toMatchObject({ status: "done", usage: { outputTokens: 2 }, timing: { ttftMs: 12 } });
  });

  it("is asked once, however often one presses Enter", () => {
    expect(opened().ask("Hi").ask("Hi again").sent()).toHaveLength(1);
    expect(opened().ask("   ").turns()).toHaveLength(0);
  });

  it("clears the draft", () => {
    const talk = opened().do({ type: "draft", text: "Hi" }).ask("Hi");
    expect(talk.state.conversations[0]!.draft).toBe("");
  });
});

describe("a next turn", () => {
  it("sends only the new message on the same socket", () => {
    const talk = opened().ask("One").answer("r1", "A");
    talk.sent();
    expect(talk.ask("Two").sent()).toEqual([
      { type: "response.create", stream_id: "c0", input: [message("user", "Two")], previous_response_id: "r1" },
    ]);
  });

  it("sends the whole history on another socket", () => {
    const talk = opened().ask("One").answer("r1", "A").do(lost(), { type: "wake" }, OPENED);
    talk.sent();
    expect(talk.ask("Two").sent()).toEqual([
      {
        type: "response.create",
        stream_id: "c0",
        input: [message("user", "One"), message("assistant", "A"), message("user", "Two")],
        prompt: { id: "bakery" },
      },
    ]);
  });

  it("sends the whole history, once, when the server has forgotten the previous response", () => {
    const forgotten = {
      type: "error",
      status: 400,
      error: { code: "previous_response_not_found", message: "no such response" },
    };
    const talk = opened().ask("One").answer("r1", "A").ask("Two");
    talk.sent();
    expect(talk.server(forgotten).sent()).toMatchObject([
      { input: [{ content: "One" }, { content: "A" }, { content: "Two" }] },
    ]);
    expect(talk.last().status).toBe("waiting");
    expect(talk.server(forgotten).sent()).toEqual([]);
    expect(talk.last().status).toBe("failed");
  });

  it("leaves out a turn that brought no answer", () => {
    const talk = opened()
      .ask("One")
      .server({ type: "error", status: 500, error: { code: "engine_error", message: "broken" } });
    talk.sent();
    expect(talk.ask("Two").sent()).toMatchObject([{ input: [{ content: "Two" }], prompt: { id: "bakery" } }]);
  });
});

describe("stopping", () => {
  it("cancels by id and keeps what was written", () => {
    const talk = opened()
      .ask("One")
      .server({ type: "response.created", response: { id: "r1" } });
    talk.server({ type: "response.output_text.delta", delta: "Tw" });
    talk.sent();
    expect(talk.do({ type: "stop" }, { type: "stop" }).sent()).toEqual([
      { type: "response.cancel", response_id: "r1" },
    ]);
    talk.server({
      type: "response.incomplete",
      response: { incomplete_details: { reason: "cancelled" }, usage: usage(9, 0, 1) },
    });
    expect(talk.last()).toMatchObject({ status: "stopped", answer: "Tw", usage: { outputTokens: 1 } });
  });

  it("cancels by lane before the id is known", () => {
    const talk = opened().ask("One");
    talk.sent();
    expect(talk.do({ type: "stop" }).sent()).toEqual([{ type: "response.cancel", stream_id: "c0" }]);
  });

  it("needs no server while the question has not gone out", () => {
    const talk = new Talk().ask("One").do({ type: "stop" }, OPENED);
    expect(talk.sent()).toEqual([]);
    expect(talk.last().status).toBe("stopped");
  });

  it("tells the limit of tokens from a stop", () => {
    const talk = opened()
      .ask("One")
      .server({ type: "response.incomplete", response: { incomplete_details: { reason: "max_output_tokens" } } });
    expect(talk.last()).toMatchObject({ status: "cut", endedBy: "max_output_tokens" });
  });
});

describe("what goes wrong", () => {
  it("a lost connection fails the running answer, keeps its text, and can be tried again", () => {
    const talk = opened().ask("One").server({ type: "response.output_text.delta", delta: "Tw" }).do(lost());
    expect(talk.last()).toMatchObject({ status: "failed", answer: "Tw", problem: { retry: true } });
    expect(talk.effects.at(-1)).toEqual({ type: "wake-after", line: "main", ms: 375 });
    talk.sent();
    talk.do({ type: "retry", turnId: "again" });
    expect(talk.turns()).toHaveLength(1);
    expect(talk.do(OPENED).sent()).toMatchObject([{ input: [{ content: "One" }] }]);
  });

  it("a message that was too big is not offered to be sent again", () => {
    const talk = opened().ask("One").do(lost(1009));
    expect(talk.last().problem).toMatchObject({ title: "The message is too big", retry: false });
  });

  it("an error without a lane belongs to the only running answer", () => {
    const talk = opened()
      .ask("One")
      .server({
        type: "error",
        stream_id: undefined,
        status: 413,
        error: { code: "message_too_big", message: "2 MiB" },
      });
    expect(talk.last().problem?.advice).toMatch(/^2 MiB\. Ask/);
    expect(talk.state.notice).toBeNull();
  });

  it("an error that belongs to no answer is a notice", () => {
    const talk = opened().server({
      type: "error",
      stream_id: undefined,
      status: 400,
      error: { code: "invalid_json", message: "bad" },
    });
    expect(talk.state.notice?.advice).toMatch(/^Bad\. /);
    expect(talk.do({ type: "dismiss" }).state.notice).toBeNull();
  });

  it("a key that no longer holds is asked for anew, and only with one is connected again", () => {
    const talk = opened().ask("One").do(lost(4401));
    expect(talk.state.signIn).toBe("needed");
    expect(talk.last().problem?.title).toContain("key");
    talk.effects = [];
    expect(talk.do({ type: "wake" }).effects).toEqual([]);
    talk.do({ type: "key", key: "sk-1" });
    expect(talk.effects).toEqual([
      { type: "load", line: "main" },
      { type: "connect", line: "main" },
    ]);
    expect(talk.do(lost(4401)).state.signIn).toBe("refused");
  });

  it("another key while a connection is being made starts that anew", () => {
    const talk = new Talk().do({ type: "key", key: "sk-1" });
    expect(talk.effects.filter(({ type }) => type === "connect")).toHaveLength(1);
  });

  it("a refusal is said and not retried until the person asks", () => {
    const talk = opened().ask("One").do(lost(4403));
    expect(talk.state.link.phase).toBe("refused");
    expect(talk.last().problem?.title).toContain("may not talk");
    expect(talk.effects.filter(({ type }) => type === "wake-after")).toEqual([]);
    expect(talk.do({ type: "wake" }).effects.at(-1)).toEqual({ type: "connect", line: "main" });
  });

  it("a resting connection wakes for a question", () => {
    const talk = opened().do(lost(4499));
    expect(talk.ask("One").effects.at(-1)).toEqual({ type: "connect", line: "main" });
    expect(talk.do(OPENED).last().status).toBe("waiting");
  });

  it("late events of an ended answer change nothing", () => {
    const talk = opened().ask("One").answer("r1", "A");
    const before = talk.last();
    talk.server({ type: "response.output_text.delta", delta: "late" });
    expect(talk.last()).toEqual(before);
  });
});

describe("conversations", () => {
  it("begins another one with the same system prompt and leaves no empty one behind", () => {
    const talk = opened().ask("One").answer("r1", "A");
    talk.do({ type: "new", id: "c1", at: 2 }, { type: "new", id: "c2", at: 3 });
    expect(talk.state.conversations.map(({ id }) => id)).toEqual(["c1", "c0"]);
    expect(talk.state.openId).toBe("c1");
    expect(talk.state.conversations[0]!.system).toMatchObject({ id: "bakery" });
  });

  it("answers in one while another is open", () => {
    const talk = opened().ask("One").do({ type: "new", id: "c1", at: 2 });
    talk.server({ type: "response.output_text.delta", stream_id: "c0", delta: "A" });
    expect(talk.state.conversations.find(({ id }) => id === "c0")!.turns[0]!.answer).toBe("A");
    expect(talk.turns()).toEqual([]);
  });

  it("keeps the system prompt once something was asked", () => {
    const talk = opened()
      .ask("One")
      .do({ type: "choose", system: { kind: "own", text: "x" } });
    expect(talk.state.conversations[0]!.system).toMatchObject({ id: "bakery" });
  });

  it("deleting stops what runs, and the last one is replaced by an empty one", () => {
    const talk = opened().ask("One");
    talk.sent();
    talk.do({ type: "delete", id: "c0", freshId: "c9", at: 5 });
    expect(talk.sent()).toEqual([{ type: "response.cancel", stream_id: "c0" }]);
    expect(talk.state.conversations.map(({ id }) => id)).toEqual(["c9"]);
    expect(talk.state.openId).toBe("c9");
  });

  it("keeps a draft per conversation", () => {
    const talk = opened().ask("One").do({ type: "draft", text: "later" }, { type: "new", id: "c1", at: 2 });
    expect(talk.state.conversations.map(({ draft }) => draft)).toEqual(["", "later"]);
  });

  it("opening one that does not exist changes nothing", () => {
    expect(opened().do({ type: "open", id: "gone" }).state.openId).toBe("c0");
  });
});
