/** Which key does what. Pure: a key press in, a command out; the sheet shows the same list. */

export type Command =
  | "write"
  | "new"
  | "search"
  | "stop"
  | "regenerate"
  | "edit"
  | "copy"
  | "older-branch"
  | "newer-branch"
  | "chat"
  | "live"
  | "compare"
  | "sampling"
  | "sheet";

export interface Press {
  key: string;
  ctrl: boolean;
  alt: boolean;
  shift: boolean;
  /** The focus is where one writes: plain letters are text there. */
  writing: boolean;
}

export interface Shortcut {
  keys: string;
  does: string;
  command: Command;
}

export const SHORTCUTS: readonly { title: string; entries: readonly Shortcut[] }[] = [
  {
    title: "Anywhere",
    entries: [
      { keys: "/", does: "Write a message", command: "write" },
      { keys: "Ctrl K", does: "Search conversations", command: "search" },
      { keys: "Alt N", does: "New conversation", command: "new" },
      { keys: "Esc", does: "Stop the answer, or close what is open", command: "stop" },
      { keys: "?", does: "This sheet", command: "sheet" },
    ],
  },
  {
    title: "In a conversation",
    entries: [
      { keys: "R", does: "Answer the last question once more", command: "regenerate" },
      { keys: "E", does: "Edit the last question", command: "edit" },
      { keys: "C", does: "Copy the last answer", command: "copy" },
      { keys: "[", does: "Earlier branch of the last question", command: "older-branch" },
      { keys: "]", does: "Later branch of the last question", command: "newer-branch" },
      { keys: "S", does: "Sampling and system prompt", command: "sampling" },
    ],
  },
  {
    title: "Views",
    entries: [
      { keys: "1", does: "Chat", command: "chat" },
      { keys: "2", does: "Live: cache and batch", command: "live" },
      { keys: "3", does: "Side by side", command: "compare" },
    ],
  },
];

const EVERYWHERE: Record<string, Command> = { "ctrl k": "search", "alt n": "new" };
const ALL = SHORTCUTS.flatMap(({ entries }) => entries);

/** null where the key means nothing to the page. Esc is not among them: what it closes depends on what is open. */
export function commandFor(press: Press): Command | null {
  const key = press.key.toLowerCase();
  if (press.ctrl || press.alt) return EVERYWHERE[`${press.ctrl ? "ctrl" : "alt"} ${key}`] ?? null;
  if (press.writing || key === "escape") return null;
  return ALL.find(({ keys }) => keys.toLowerCase() === key)?.command ?? null;
}
