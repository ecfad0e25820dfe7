/** What the views may ask for, in the person's words. Adds ids and times; knows nothing of what follows. */
import type { System } from "../model/conversation";
import type { Action } from "../model/state";

export interface Intents {
  ask(text: string): void;
  retry(): void;
  stop(): void;
  startNew(): void;
  open(id: string): void;
  remove(id: string): void;
  draft(text: string): void;
  choose(system: System): void;
  dismiss(): void;
  reconnect(): void;
}

export function createIntents(dispatch: (action: Action) => void, newId: () => string, now: () => number): Intents {
  return {
    ask: (text) => dispatch({ type: "ask", turnId: newId(), text }),
    retry: () => dispatch({ type: "retry", turnId: newId() }),
    stop: () => dispatch({ type: "stop" }),
    startNew: () => dispatch({ type: "new", id: newId(), at: now() }),
    open: (id) => dispatch({ type: "open", id }),
    remove: (id) => dispatch({ type: "delete", id, freshId: newId(), at: now() }),
    draft: (text) => dispatch({ type: "draft", text }),
    choose: (system) => dispatch({ type: "choose", system }),
    dismiss: () => dispatch({ type: "dismiss" }),
    reconnect: () => dispatch({ type: "wake" }),
  };
}
