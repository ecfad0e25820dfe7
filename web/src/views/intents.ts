/** What the views may ask for, in the person's words. Adds ids and times; knows nothing of what follows. */
import type { Theme } from "../browser/theme";
import type { SideName } from "../model/compare";
import type { Conversation, System } from "../model/conversation";
import { toJson, toMarkdown, type ExportedFile } from "../model/exchange";
import type { Page } from "../model/routes";
import type { Sampling } from "../model/sampling";
import type { Action } from "../model/state";

export interface Intents {
  go(page: Page): void;
  ask(text: string): void;
  retry(): void;
  regenerate(of: string): void;
  edit(of: string, text: string): void;
  goOn(): void;
  branch(turn: string, by: number): void;
  removeTurn(turn: string): void;
  stop(): void;
  draft(text: string): void;
  choose(system: System): void;
  wantVersions(promptId: string): void;
  sample(change: Partial<Sampling>): void;
  startNew(): void;
  open(id: string): void;
  rename(id: string, title: string): void;
  remove(id: string): void;
  search(text: string): void;
  saveJson(conversations: readonly Conversation[]): void;
  saveMarkdown(conversation: Conversation): void;
  openFiles(): void;
  dismiss(): void;
  reconnect(): void;
  signIn(key: string): void;
  compare(question: string): void;
  chooseSide(name: SideName, system: System): void;
  signInSide(name: SideName, key: string): void;
  stopSides(): void;
  theme(): Theme;
  setTheme(theme: Theme): void;
}

/** What only the browser can do. */
export interface Outside {
  save(file: ExportedFile): void;
  open(): Promise<void>;
  theme(): Theme;
  setTheme(theme: Theme): void;
}

export function createIntents(
  dispatch: (action: Action) => void,
  newId: () => string,
  now: () => number,
  outside: Outside,
): Intents {
  return {
    go: (page) => dispatch({ type: "go", page }),
    ask: (text) => dispatch({ type: "ask", turnId: newId(), text }),
    retry: () => dispatch({ type: "retry", turnId: newId() }),
    regenerate: (of) => dispatch({ type: "regenerate", of, turnId: newId() }),
    edit: (of, text) => dispatch({ type: "edit", of, turnId: newId(), text }),
    goOn: () => dispatch({ type: "continue", turnId: newId() }),
    branch: (turn, by) => dispatch({ type: "branch", turn, by }),
    removeTurn: (turn) => dispatch({ type: "delete-turn", turn }),
    stop: () => dispatch({ type: "stop" }),
    draft: (text) => dispatch({ type: "draft", text }),
    choose: (system) => dispatch({ type: "choose", system }),
    wantVersions: (id) => dispatch({ type: "want-versions", id }),
    sample: (change) => dispatch({ type: "sample", change }),
    startNew: () => dispatch({ type: "new", id: newId(), at: now() }),
    open: (id) => dispatch({ type: "open", id }),
    rename: (id, title) => dispatch({ type: "rename", id, title }),
    remove: (id) => dispatch({ type: "delete", id, freshId: newId(), at: now() }),
    search: (text) => dispatch({ type: "search", text }),
    saveJson: (conversations) => outside.save(toJson(conversations)),
    saveMarkdown: (conversation) => outside.save(toMarkdown(conversation)),
    openFiles: () => void outside.open(),
    dismiss: () => dispatch({ type: "dismiss" }),
    reconnect: () => dispatch({ type: "wake" }),
    signIn: (key) => dispatch({ type: "key", key: key.trim() }),
    compare: (question) => dispatch({ type: "compare", question, turnIds: { left: newId(), right: newId() } }),
    chooseSide: (name, system) => dispatch({ type: "side", name, action: { type: "choose", system } }),
    signInSide: (name, key) => dispatch({ type: "side", name, action: { type: "key", key: key.trim() } }),
    stopSides() {
      dispatch({ type: "side", name: "left", action: { type: "stop" } });
      dispatch({ type: "side", name: "right", action: { type: "stop" } });
    },
    theme: () => outside.theme(),
    setTheme: (theme) => outside.setTheme(theme),
  };
}
