import { describe, expect, it } from "vitest";
import { CONTINUE } from "../src/model/asking";
import { branchesAt, lastShown, shown } from "../src/model/branches";
import { OPENED, Talk } from "./talk";

const talking = () => new Talk().do(OPENED).ask("One", "a").answer("r1", "1").ask("Two", "b").answer("r2", "2");
const path = (talk: Talk) => talk.turns().map(({ id }) => id);

describe("branches", () => {
  it("answering once more keeps the first answer beside it", () => {
    const talk = talking();
    talk.sent();
    talk.do({ type: "regenerate", of: "b", turnId: "b2" });
    expect(talk.sent()).toMatchObject([{ previous_response_id: "r1", input: [{ content: "Two" }] }]);
    talk.answer("r3", "2 again");
    expect(path(talk)).toEqual(["a", "b2"]);
    expect(branchesAt(talk.open(), talk.last()).map(({ answer }) => answer)).toEqual(["2", "2 again"]);
  });

  it("an edited question goes on from what stood before it", () => {
    const talk = talking();
    talk.sent();
    talk.do({ type: "edit", of: "a", turnId: "a2", text: " Uno " });
    expect(talk.sent()).toMatchObject([{ input: [{ content: "Uno" }] }]);
    expect(path(talk)).toEqual(["a2"]);
    talk.answer("r3", "1").ask("Due", "c");
    expect(path(talk)).toEqual(["a2", "c"]);
    expect(talk.open().turns).toHaveLength(4);
  });

  it("are moved between, each with what followed it, and not beyond the ends", () => {
    const talk = talking().do({ type: "edit", of: "a", turnId: "a2", text: "Uno" }).answer("r3", "1");
    talk.do({ type: "branch", turn: "a2", by: -1 });
    expect(path(talk)).toEqual(["a", "b"]);
    talk.do({ type: "branch", turn: "a", by: -1 });
    expect(path(talk)).toEqual(["a", "b"]);
    talk.do({ type: "branch", turn: "a", by: 1 });
    expect(path(talk)).toEqual(["a2"]);
  });

  it("take the answer that was asked for although another one is looked at meanwhile", () => {
    const talk = talking().do({ type: "regenerate", of: "b", turnId: "b2" }, { type: "branch", turn: "b2", by: -1 });
    talk.answer("r3", "late");
    expect(path(talk)).toEqual(["a", "b"]);
    expect(talk.open().turns.at(-1)).toMatchObject({ id: "b2", answer: "late", status: "done" });
  });

  it("wait for one another: one answer at a time in a conversation", () => {
    const talk = talking().do({ type: "regenerate", of: "b", turnId: "b2" }, { type: "branch", turn: "b2", by: -1 });
    talk.sent();
    talk.do({ type: "regenerate", of: "a", turnId: "a2" }).ask("Three");
    expect(talk.sent()).toEqual([]);
    expect(talk.open().turns).toHaveLength(3);
  });
});

describe("deleting a turn", () => {
  it("takes what followed it along and shows what came before", () => {
    const talk = talking().ask("Three", "c").answer("r3", "3").do({ type: "delete-turn", turn: "b" });
    expect(path(talk)).toEqual(["a"]);
    expect(talk.open().gone).toEqual(["b", "c"]);
  });

  it("shows the branch beside it", () => {
    const talk = talking().do({ type: "regenerate", of: "b", turnId: "b2" }).answer("r3", "2");
    expect(path(talk.do({ type: "delete-turn", turn: "b2" }))).toEqual(["a", "b"]);
  });

  it("leaves an empty conversation after the only one", () => {
    const talk = new Talk().do(OPENED).ask("One", "a").answer("r1", "1").do({ type: "delete-turn", turn: "a" });
    expect(lastShown(talk.open())).toBeNull();
    expect(talk.ask("Again").turns()).toHaveLength(1);
  });

  it("stops what is running in it", () => {
    const talk = talking().ask("Three", "c");
    talk.sent();
    talk.do({ type: "delete-turn", turn: "c" });
    expect(talk.sent()).toEqual([{ type: "response.cancel", stream_id: "c0" }]);
  });
});

describe("continuing", () => {
  it("asks for the rest of an answer that was cut", () => {
    const talk = new Talk().do(OPENED).ask("One", "a");
    talk.server({ type: "response.created", response: { id: "r1" } });
    talk.server({ type: "response.output_text.delta", delta: "Half" });
    talk.server({ type: "response.incomplete", response: { incomplete_details: { reason: "max_output_tokens" } } });
    talk.sent();
    talk.do({ type: "continue", turnId: "b" });
    expect(talk.sent()).toMatchObject([{ previous_response_id: "r1", input: [{ content: CONTINUE }] }]);
    expect(talk.last()).toMatchObject({ continues: true, parent: "a" });
  });
});

describe("sampling", () => {
  it("goes along with the request, and what is not set does not", () => {
    const talk = new Talk().do(OPENED, {
      type: "sample",
      change: { temperature: 0, maxTokens: 64, seed: 7, stop: ["\n"] },
    });
    const [request] = talk.ask("Hi").sent();
    expect(request).toMatchObject({ temperature: 0, max_output_tokens: 64, seed: 7, stop: ["\n"] });
    expect(request).not.toHaveProperty("top_p");
  });

  it("keeps one field as another is changed, however fast", () => {
    const talk = new Talk().do({ type: "sample", change: { seed: 7 } }, { type: "sample", change: { topP: 0.5 } });
    expect(talk.open().sampling).toMatchObject({ seed: 7, topP: 0.5, temperature: null });
  });

  it("shows as the server's default what the server took by itself, not what was asked for", () => {
    const talk = new Talk().do(OPENED, { type: "sample", change: { temperature: 0.1 } }).ask("Hi");
    talk.server({ type: "response.created", response: { id: "r", temperature: 0.1, top_p: 0.95 } });
    expect(talk.state.defaults).toEqual({ topP: 0.95 });
  });

  it("names the version of a prompt that was chosen, and none for the latest", () => {
    const asked = (version: string | null) =>
      new Talk()
        .do(OPENED, { type: "choose", system: { kind: "prompt", id: "p", name: "P", version } })
        .ask("Hi")
        .sent()[0];
    expect(asked("3")).toMatchObject({ prompt: { id: "p", version: "3" } });
    expect(asked(null)).toMatchObject({ prompt: { id: "p" } });
    expect(asked(null)).not.toHaveProperty("prompt.version");
  });
});

it("a title of one's own stands until it is taken away", () => {
  const talk = talking().do({ type: "rename", id: "c0", title: "  Numbers " });
  expect(talk.open().title).toBe("Numbers");
  expect(talk.do({ type: "rename", id: "c0", title: " " }).open().title).toBeNull();
  expect(shown(talk.open())).toHaveLength(2);
});
