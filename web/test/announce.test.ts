import { describe, expect, it } from "vitest";
import { announcement, limitLabel, linkLabel, waitingLabel } from "../src/model/announce";
import { newTurn } from "../src/model/conversation";
import { closed, firstLink, opened, woken } from "../src/model/link";
import { ofLink } from "../src/model/problems";
import { lost, OPENED, Talk } from "./talk";

describe("announcement", () => {
  it("speaks of states, not of tokens", () => {
    const talk = new Talk().do(OPENED).ask("Hi");
    const heard = [announcement(talk.state)];
    for (const delta of ["a", "b", "c"])
      heard.push(announcement(talk.server({ type: "response.output_text.delta", delta }).state));
    expect(new Set(heard)).toEqual(new Set(["Answering."]));
    talk.server({ type: "response.completed", response: { usage: { output_tokens: 1234 } } });
    expect(announcement(talk.state)).toBe("Answer finished, 1,234 tokens.");
  });

  it("says why an answer failed and that the connection is gone", () => {
    const talk = new Talk().do(OPENED).ask("Hi");
    talk.server({ type: "error", status: 503, error: { code: "server_overloaded", message: "full" } });
    expect(announcement(talk.state)).toBe("The server is busy");
    expect(announcement(talk.do(lost()).state)).toContain("No connection");
  });

  it("says what concerns the page as a whole", () => {
    const talk = new Talk().do(OPENED, { type: "notice", problem: { title: "Look", advice: "", retry: false } });
    expect(announcement(talk.state)).toBe("Look");
    expect(announcement(talk.do(lost(4403)).state)).toContain("may not talk");
  });

  it("asks for a key, and says what is wrong with one", () => {
    const talk = new Talk().do({ type: "key-needed" });
    expect(announcement(talk.state)).toBe("Sign in with a key.");
    expect(announcement(talk.do({ type: "key", key: "x" }, { type: "key-needed" }).state)).toContain("does not know this key");
    talk.do({ type: "key", key: "y" }).server({ type: "x.session", tenant: "alda", model: "m" });
    expect(announcement(talk.do(lost(4401)).state)).toBe("This key is no longer valid");
    expect(announcement(talk.do({ type: "key", key: "z" }, lost(4997)).state)).toBe("This key may not chat");
    expect(announcement(talk.do({ type: "key", key: "x" }, { type: "key-needed" }).state)).toContain("does not know");
  });

  it("speaks of both sides at once, and of the live page only what is wrong with it", () => {
    const talk = new Talk().do(OPENED, { type: "go", page: "compare" });
    expect(announcement(talk.state)).toBe("");
    talk.do({ type: "compare", question: "Hi", turnIds: { left: "l", right: "r" } });
    expect(announcement(talk.state)).toBe("Answering on both sides.");
    for (const name of ["left", "right"] as const) talk.do({ type: "side", name, action: { type: "stop" } });
    expect(announcement(talk.state)).toBe("Both answers finished.");
    expect(announcement(talk.do({ type: "go", page: "live" }).state)).toBe("");
  });

  it("says before the first token what is waited for", () => {
    const turn = newTurn("t", "Hi");
    expect(waitingLabel(turn)).toContain("connection");
    expect(waitingLabel({ ...turn, status: "waiting" })).toBe("Reading");
    expect(waitingLabel({ ...turn, status: "waiting", ahead: 0 })).toBe("Next in the queue");
    expect(waitingLabel({ ...turn, status: "waiting", ahead: 1200 })).toBe("In the queue, 1,200 before this one");
  });

  it("names limits", () => {
    expect([limitLabel("deadline"), limitLabel("max_output_tokens"), limitLabel(null)]).toEqual([
      "Ended at the time limit.",
      "Ended at the length limit.",
      "Ended early.",
    ]);
  });
});

describe("the connection in words", () => {
  it("tells a first attempt from a lost connection", () => {
    expect(linkLabel(firstLink)).toBe("Connecting");
    expect(linkLabel(opened(firstLink))).toBe("Connected");
    expect(linkLabel(closed(opened(firstLink), 1006, 0))).toBe("Reconnecting");
    expect(linkLabel(closed(opened(firstLink), 4499, 0))).toBe("Resting");
    expect(linkLabel(closed(opened(firstLink), 4400, 0))).toBe("Disconnected");
  });

  it("asks to look after the server once several attempts have failed", () => {
    let link = firstLink;
    const said = [1, 2, 3].map(() => {
      link = closed(woken(link), 1006, 0);
      return ofLink(link) !== null;
    });
    expect(said).toEqual([false, false, true]);
    expect(ofLink(opened(woken(link)))).toBeNull();
  });
});
