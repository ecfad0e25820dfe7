/**
 * Holds the state, runs the reducer, and draws at most once per animation frame.
 *
 * Knows when to draw; not what, and not what actions mean. State changes at once with every action: only drawing waits.
 */
import type { Effect, Next } from "../model/update";
import type { Action, State } from "../model/state";

export interface World {
  run(effect: Effect): void;
  /** `before` is the state that was drawn last. */
  draw(state: State, before: State): void;
  nextFrame(callback: () => void): void;
}

export interface Store {
  state(): State;
  dispatch(action: Action): void;
}

/**
 * `urgent` says whether a change is to be drawn now rather than with the next frame: the first token is, so that
 * nothing is added to the time until it is seen. (A frame asked for by a page in the background comes late or never.)
 */
export function createStore(
  first: State,
  update: (state: State, action: Action) => Next,
  urgent: (before: State, after: State) => boolean,
  world: World,
): Store {
  let state = first;
  let drawn = first;
  let frameAsked = false;

  function draw(): void {
    const before = drawn;
    drawn = state;
    world.draw(state, before);
  }

  function drawNextFrame(): void {
    if (frameAsked) return;
    frameAsked = true;
    world.nextFrame(() => {
      frameAsked = false;
      if (drawn !== state) draw();
    });
  }

  return {
    state: () => state,
    dispatch(action) {
      const before = state;
      const next = update(state, action);
      state = next.state;
      next.effects.forEach((effect) => world.run(effect));
      if (state === before) return;
      if (urgent(before, state)) draw();
      else drawNextFrame();
    },
  };
}
