import { describe, expect, it } from "vitest";
import { createStore } from "../src/browser/store";
import { initialState, type Action, type State } from "../src/model/state";
import { update } from "../src/model/update";
import { VISIT } from "./talk";

function harness(urgent: (before: State, after: State) => boolean = () => false) {
  const frames: (() => void)[] = [];
  const drawn: State[] = [];
  const store = createStore(initialState([], VISIT), update, urgent, {
    run: () => undefined,
    draw: (state) => drawn.push(state),
    nextFrame: (callback) => frames.push(callback),
  });
  const type = (text: string): Action => ({ type: "draft", text });
  return { store, frames, drawn, type };
}

describe("store", () => {
  it("draws once per frame, and the newest state", () => {
    const { store, frames, drawn, type } = harness();
    ["a", "ab", "abc"].forEach((text) => store.dispatch(type(text)));
    expect([frames.length, drawn.length]).toEqual([1, 0]);
    frames.pop()!();
    expect(drawn.map((state) => state.conversations[0]!.draft)).toEqual(["abc"]);
  });

  it("draws what is urgent at once, and not again with the frame that was asked for", () => {
    const { store, frames, drawn, type } = harness((_, after) => after.conversations[0]!.draft === "now");
    store.dispatch(type("soon"));
    store.dispatch(type("now"));
    expect(drawn).toHaveLength(1);
    frames.pop()!();
    expect(drawn).toHaveLength(1);
    store.dispatch(type("later"));
    expect(frames).toHaveLength(1);
  });

  it("does not draw what changed nothing", () => {
    const { store, frames } = harness();
    store.dispatch({ type: "open", id: "nobody" });
    expect(frames).toHaveLength(0);
  });
});
