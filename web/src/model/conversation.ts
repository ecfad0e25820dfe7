/**
 * A conversation and its turns, and how a turn takes in the server's events.
 *
 * Pure. Knows the order of a response's events. Does not know the socket, the other conversations or the page.
 */
import { fromServer, type Problem } from "./problems";
import type { CacheReport, Ending, ServerEvent, Timing, Usage } from "./protocol";

/** What the model is told first: a prompt the server keeps (by id), or one's own text (empty: none). */
export type System = { kind: "prompt"; id: string; name: string } | { kind: "own"; text: string };

export type TurnStatus =
  /** Not sent yet: the socket is not open. */
  | "queued"
  /** Sent; no token has come back. */
  | "waiting"
  | "streaming"
  /** The person has stopped it; the server's last event is on its way. */
  | "stopping"
  | "done"
  /** Ended by a limit; `endedBy` says by which. */
  | "cut"
  | "stopped"
  | "failed";

export interface Turn {
  id: string;
  question: string;
  answer: string;
  status: TurnStatus;
  /** The response's id and the socket (link epoch) on which the server knows it. */
  responseId: string | null;
  epoch: number;
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
  /** null until the person, or the first catalogue of prompts, has chosen. */
  system: System | null;
  turns: readonly Turn[];
  draft: string;
}

export function newConversation(id: string, createdAt: number, system: System | null): Conversation {
  return { id, createdAt, system, turns: [], draft: "" };
}

export function newTurn(id: string, question: string): Turn {
  return {
    id,
    question,
    answer: "",
    status: "queued",
    responseId: null,
    epoch: 0,
    whole: false,
    cache: null,
    usage: null,
    timing: null,
    endedBy: null,
    problem: null,
  };
}

export function lastTurn(conversation: Conversation): Turn | null {
  return conversation.turns.at(-1) ?? null;
}

export function isActive(turn: Turn | null): boolean {
  return turn !== null && (turn.status === "queued" || isRunning(turn));
}

/** On the wire: sent and not ended. */
export function isRunning(turn: Turn): boolean {
  return turn.status === "waiting" || turn.status === "streaming" || turn.status === "stopping";
}

export function withLastTurn(conversation: Conversation, change: (turn: Turn) => Turn): Conversation {
  const turn = lastTurn(conversation);
  return turn ? { ...conversation, turns: [...conversation.turns.slice(0, -1), change(turn)] } : conversation;
}

/** The first words of the first question; what the sidebar calls the conversation. */
export function titleOf(conversation: Conversation): string {
  const words = conversation.turns[0]?.question.replace(/\s+/g, " ").trim() ?? "";
  if (!words) return "New conversation";
  return words.length <= 60 ? words : `${words.slice(0, 59).trimEnd()}…`;
}

/** A running turn after one of its events. Events for a turn that has ended are late and change nothing. */
export function afterEvent(turn: Turn, event: ServerEvent): Turn {
  if (!isRunning(turn)) return turn;
  switch (event.type) {
    case "created":
      return { ...turn, responseId: event.responseId || null };
    case "cache":
      return { ...turn, cache: event.cache };
    case "delta":
      return {
        ...turn,
        answer: turn.answer + event.text,
        status: turn.status === "waiting" ? "streaming" : turn.status,
      };
    case "ended":
      return afterEnding(turn, event.ending);
    case "error":
      return failed(turn, fromServer(event.error));
    case "session":
      return turn;
  }
}

export function failed(turn: Turn, problem: Problem): Turn {
  return { ...turn, status: "failed", problem };
}

function afterEnding(turn: Turn, ending: Ending): Turn {
  const ended = { ...turn, usage: ending.usage, timing: ending.timing };
  switch (ending.kind) {
    case "completed":
      return { ...ended, status: "done" };
    case "incomplete":
      return { ...ended, status: ending.reason === "cancelled" ? "stopped" : "cut", endedBy: ending.reason };
    case "failed":
      return failed(ended, fromServer(ending.error ?? { status: null, code: "unknown", message: "" }));
  }
}
