/**
 * A conversation as a tree of turns, and how a turn takes in the server's events.
 *
 * Pure. Knows the order of a response's events. Does not know the socket, the other conversations or the page;
 * `branches.ts` knows how one moves in the tree.
 */
import { fromServer, type Problem } from "./problems";
import type { CacheReport, Ending, ServerEvent, Timing, Usage } from "./protocol";
import { serversOwn, type Sampling } from "./sampling";

/** What the model is told first: a prompt the server keeps (by id), or one's own text (empty: none). */
export type System =
  /** `version`: null for whichever is the latest. */
  { kind: "prompt"; id: string; name: string; version: string | null } | { kind: "own"; text: string };

export type TurnStatus =
  /** Not sent yet: the socket is not open. */
  | "queued"
  /** Sent; no token has come back. */
  | "waiting"
  | "streaming"
  /** The person has stopped it; the server's last event is on its way. */
  | "stopping"
  /** The connection was lost under it; with the next one its events are asked for from where they broke off. */
  | "lost"
  | "done"
  /** Ended by a limit; `endedBy` says by which. */
  | "cut"
  | "stopped"
  | "failed";

export interface Turn {
  id: string;
  /** The turn it follows; null at the beginning. Turns with one parent are branches of each other. */
  parent: string | null;
  question: string;
  /** Asked by the page to have the answer before this one continued. */
  continues: boolean;
  answer: string;
  status: TurnStatus;
  /** The tab that runs it, as long as it is active: no other one touches it. */
  tab: string | null;
  /** The response's id and the socket (link epoch) on which the server knows it. */
  responseId: string | null;
  epoch: number;
  /** The last sequence number seen; -1 before the first. */
  sequence: number;
  /** Requests before it in the server's queue; null when unknown or not queued there. */
  ahead: number | null;
  /** Its events were asked for anew, and none has come yet. */
  resuming: boolean;
  /** How often a connection was lost under it before the server said anything. */
  losses: number;
  /** The whole history was sent with this turn, because the server no longer had the previous response. */
  whole: boolean;
  cache: CacheReport | null;
  usage: Usage | null;
  timing: Timing | null;
  endedBy: string | null;
  problem: Problem | null;
}

export interface Conversation {
  id: string;
  /** Milliseconds since 1970; orders the list. */
  createdAt: number;
  /** What the person called it; null for the first words of the first question. */
  title: string | null;
  /** null until the person, or the first catalogue of prompts, has chosen. */
  system: System | null;
  sampling: Sampling;
  /** Counts changes of title, system prompt and sampling; of two copies the later one's hold. */
  edition: number;
  /** All turns of all branches, parents before what follows them. */
  turns: readonly Turn[];
  /** The last turn of the branch that is shown; null while there is none. */
  head: string | null;
  /** Turns that were deleted: another tab's copy does not bring them back. */
  gone: readonly string[];
  draft: string;
}

export function newConversation(id: string, createdAt: number, system: System | null): Conversation {
  return {
    id,
    createdAt,
    title: null,
    system,
    sampling: serversOwn,
    edition: 0,
    turns: [],
    head: null,
    gone: [],
    draft: "",
  };
}

export function newTurn(id: string, question: string, parent: string | null = null): Turn {
  return {
    id,
    parent,
    question,
    continues: false,
    answer: "",
    status: "queued",
    tab: null,
    responseId: null,
    epoch: 0,
    sequence: -1,
    ahead: null,
    resuming: false,
    losses: 0,
    whole: false,
    cache: null,
    usage: null,
    timing: null,
    endedBy: null,
    problem: null,
  };
}

export function isActive(turn: Turn | null): boolean {
  return turn !== null && (turn.status === "queued" || turn.status === "lost" || isRunning(turn));
}

/** On the wire: sent and not ended. */
export function isRunning(turn: Turn): boolean {
  return turn.status === "waiting" || turn.status === "streaming" || turn.status === "stopping";
}

/** The turn that `tab` runs in this conversation: at most one at a time. */
export function activeTurn(conversation: Conversation, tab: string): Turn | null {
  return conversation.turns.findLast((turn) => isActive(turn) && turn.tab === tab) ?? null;
}

export function withTurn(conversation: Conversation, id: string, change: (turn: Turn) => Turn): Conversation {
  let changed = false;
  const turns = conversation.turns.map((turn) => {
    if (turn.id !== id) return turn;
    const next = change(turn);
    changed ||= next !== turn;
    return next;
  });
  return changed ? { ...conversation, turns } : conversation;
}

const TITLE_LENGTH = 60;

/** What the sidebar calls it: the person's title, else the first words of the first question. */
export function titleOf(conversation: Conversation): string {
  if (conversation.title) return conversation.title;
  const words = conversation.turns[0]?.question.replace(/\s+/g, " ").trim() ?? "";
  if (!words) return "New conversation";
  return words.length <= TITLE_LENGTH ? words : `${words.slice(0, TITLE_LENGTH - 1).trimEnd()}…`;
}

/** A running turn after one of its events. Late events, and those seen before a reconnect, change nothing. */
export function afterEvent(turn: Turn, event: ServerEvent): Turn {
  if (!isRunning(turn)) return turn;
  if (!("sequence" in event)) return turn;
  if (event.sequence !== null && event.sequence <= turn.sequence) return turn;
  const seen = { ...turn, resuming: false, losses: 0, sequence: event.sequence ?? turn.sequence };
  switch (event.type) {
    case "queued":
      return { ...seen, responseId: event.responseId ?? turn.responseId, ahead: event.ahead };
    case "created":
      return { ...seen, responseId: event.responseId || null };
    case "cache":
      return { ...seen, cache: event.cache, ahead: null };
    case "delta":
      return {
        ...seen,
        answer: turn.answer + event.text,
        ahead: null,
        status: turn.status === "waiting" ? "streaming" : turn.status,
      };
    case "ended":
      return afterEnding(seen, event.ending);
  }
}

export function failed(turn: Turn, problem: Problem): Turn {
  return { ...ended(turn, "failed"), problem };
}

export function stopped(turn: Turn): Turn {
  return ended(turn, "stopped");
}

function ended(turn: Turn, status: TurnStatus): Turn {
  return { ...turn, status, tab: null, ahead: null, resuming: false };
}

function afterEnding(turn: Turn, ending: Ending): Turn {
  const known = { ...turn, usage: ending.usage, timing: ending.timing };
  switch (ending.kind) {
    case "completed":
      return ended(known, "done");
    case "incomplete":
      return { ...ended(known, ending.reason === "cancelled" ? "stopped" : "cut"), endedBy: ending.reason };
    case "failed":
      return failed(known, fromServer(ending.error ?? { status: null, code: "unknown", message: "" }));
  }
}
