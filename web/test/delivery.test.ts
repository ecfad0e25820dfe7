import { describe, expect, it } from "vitest";
import type { Conversation } from "../src/model/conversation";
import { lost, OPENED, Talk } from "./talk";

const error = (code: string) => ({ type: "error", status: 404, error: { code, message: "gone" } });
const delta = (sequence_number: number, text: string) => ({
  type: "response.output_text.delta",
  sequence_number,
  delta: text,
});

/** An answer of which two events have come when the connection breaks. */
function broken(code = 1006): Talk {
  const talk = new Talk().do(OPENED).ask("One", "a");
  talk.server({ type: "response.created", sequence_number: 0, response: { id: "r1" } }).server(delta(4, "Tw"));
  talk.do(lost(code));
  talk.sent();
  return talk;
}

describe("an answer under which the connection breaks", () => {
  it("is asked for from where it broke off, and goes on there", () => {
    const talk = broken();
    expect(talk.last()).toMatchObject({ status: "lost", answer: "Tw" });
    talk.do({ type: "wake" }, OPENED);
    expect(talk.sent()).toEqual([{ type: "x.resume", response_id: "r1", after: 4, stream_id: "c0" }]);
    expect(talk.last().status).toBe("streaming");
    talk.server(delta(5, "o.")).server({ type: "response.completed", sequence_number: 6, response: {} });
    expect(talk.last()).toMatchObject({ status: "done", answer: "Two.", tab: null });
  });

  it("does not take in twice what is played again", () => {
    const talk = broken().do({ type: "wake" }, OPENED);
    talk.server(delta(4, "Tw")).server(delta(5, "o."));
    expect(talk.last().answer).toBe("Two.");
  });

  it("is chained to on the new connection", () => {
    const talk = broken().do({ type: "wake" }, OPENED);
    talk.server({ type: "response.completed", sequence_number: 5, response: {} });
    talk.sent();
    expect(talk.ask("Two").sent()).toMatchObject([{ previous_response_id: "r1" }]);
  });

  it("is asked for on every further connection until one holds", () => {
    const talk = broken().do({ type: "wake" }, OPENED, lost(), { type: "wake" }, OPENED);
    expect(talk.sent()).toMatchObject([{ type: "x.resume" }, { type: "x.resume" }]);
  });

  it("keeps its text and can be asked again where the server no longer has it", () => {
    for (const code of ["response_not_found", "resume_gap", "unknown_event"]) {
      const talk = broken().do({ type: "wake" }, OPENED).server(error(code));
      expect(talk.last()).toMatchObject({ status: "failed", answer: "Tw", problem: { retry: true } });
    }
  });

  it("is asked anew, whole, where nothing of it had come", () => {
    const talk = new Talk().do(OPENED).ask("One", "a");
    talk.server({ type: "response.created", sequence_number: 0, response: { id: "r1" } });
    talk.do(lost(), { type: "wake" }, OPENED);
    talk.sent();
    expect(talk.server(error("response_not_found")).sent()).toMatchObject([{ type: "response.create" }]);
    expect(talk.last()).toMatchObject({ status: "waiting", whole: true, tab: "here" });
  });

  it("is sent anew where the server had not even begun, but not for ever", () => {
    const talk = new Talk().do(OPENED).ask("One", "a");
    for (let loss = 1; loss <= 2; loss++) {
      talk.do(lost());
      expect(talk.last().status).toBe("queued");
      talk.do({ type: "wake" }, OPENED);
    }
    expect(talk.do(lost()).last()).toMatchObject({ status: "failed", problem: { retry: true } });
  });

  it("is opened again at once when the page was too slow to read it", () => {
    const talk = broken(4490);
    expect(talk.state.link.phase).toBe("connecting");
    expect(talk.do(OPENED).sent()).toMatchObject([{ type: "x.resume" }]);
  });

  it("ends where it was being stopped", () => {
    const talk = new Talk().do(OPENED).ask("One").server(delta(0, "Tw")).do({ type: "stop" }, lost());
    expect(talk.last()).toMatchObject({ status: "stopped", answer: "Tw" });
  });

  it("can be stopped while there is no connection", () => {
    const talk = broken().do({ type: "stop" });
    expect(talk.last().status).toBe("stopped");
    expect(talk.do({ type: "wake" }, OPENED).sent()).toEqual([]);
  });
});

describe("an answer that was running when the page was left", () => {
  const left = (tab: string): Conversation[] => {
    const talk = new Talk([], { tab }).do(OPENED).ask("One", "a");
    talk.server({ type: "response.created", sequence_number: 0, response: { id: "r1" } }).server(delta(4, "Tw"));
    return [...talk.state.conversations];
  };

  it("goes on when the same tab opens it again", () => {
    const talk = new Talk(left("here"), { lastOpenId: "c0", freshId: "c1" }).do(OPENED);
    expect(talk.sent()).toEqual([{ type: "x.resume", response_id: "r1", after: 4, stream_id: "c0" }]);
  });

  it("belongs to the other tab as long as that is there", () => {
    const talk = new Talk(left("there"), { lastOpenId: "c0", freshId: "c1" }).do(OPENED);
    expect(talk.sent()).toEqual([]);
    expect(talk.ask("Two").sent()).toEqual([]);
    talk.do({ type: "stop" });
    expect(talk.last().status).toBe("streaming");
  });

  it("is taken up when the other tab is gone", () => {
    const talk = new Talk(left("there"), { lastOpenId: "c0", freshId: "c1" }).do(OPENED);
    talk.do({ type: "tab-gone", tab: "there" });
    expect(talk.sent()).toMatchObject([{ type: "x.resume", response_id: "r1" }]);
  });

  it("is not asked anew unbidden where the server has forgotten it", () => {
    const conversation = left("here")[0]!;
    const silent = { ...conversation, turns: [{ ...conversation.turns[0]!, answer: "" }] };
    const talk = new Talk([silent], { lastOpenId: "c0", freshId: "c1" }).do(OPENED);
    talk.sent();
    // The link's first connection of this visit is the one it was resumed on.
    talk.server(error("response_not_found"));
    expect(talk.sent()).toEqual([]);
    expect(talk.last()).toMatchObject({ status: "failed", problem: { retry: true } });
  });
});

it("says how many stand before it in the queue until its turn comes", () => {
  const talk = new Talk().do(OPENED).ask("One", "a");
  talk.server({ type: "response.queued", sequence_number: 0, response: { id: "r1" }, x_position: 4 });
  expect(talk.last()).toMatchObject({ ahead: 3, responseId: "r1" });
  talk.server({ type: "x.cache", sequence_number: 2, prompt_tokens: 1 });
  expect(talk.last().ahead).toBeNull();
});
