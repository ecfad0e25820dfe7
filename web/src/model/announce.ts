/**
 * What a screen reader is told, politely and once per change: states, never single tokens. Pure.
 */
import { lastShown } from "./branches";
import { formatCount } from "./cache";
import { SIDES } from "./compare";
import { isActive, type Turn } from "./conversation";
import type { Link } from "./link";
import { fromRefusal, ofSignIn } from "./problems";
import { openConversation, type State } from "./state";

/** The sentence for the state as it is; the live region speaks when it changes. */
export function announcement(state: State): string {
  if (state.signIn !== "none") return ofSignIn(state.signIn)?.title ?? "Sign in with a key.";
  if (state.link.phase === "backoff") return "No connection to the server. Trying again.";
  if (state.link.phase === "refused") return fromRefusal(state.link.closeCode).title;
  if (state.notice) return state.notice.title;
  if (state.page === "live") return state.live.problem?.title ?? "";
  return state.page === "compare" ? ofBoth(state) : ofTurn(lastShown(openConversation(state)), state.tab);
}

function ofBoth(state: State): string {
  const turns = SIDES.map((name) => state.compare[name].turn);
  if (turns.every((turn) => turn === null)) return "";
  if (turns.some(isActive)) return "Answering on both sides.";
  const failed = turns.find((turn) => turn?.status === "failed");
  return failed ? ofTurn(failed, state.tab) : "Both answers finished.";
}

function ofTurn(turn: Turn | null, tab: string): string {
  switch (turn?.status) {
    case undefined:
      return "";
    case "queued":
      return "Waiting for the connection.";
    case "lost":
      return "The connection broke. The answer goes on with the next one.";
    case "waiting":
    case "streaming":
    case "stopping":
      return turn.tab === tab ? "Answering." : "Answering in another tab.";
    case "done":
      return `Answer finished${turn.usage ? `, ${formatCount(turn.usage.outputTokens)} tokens` : ""}.`;
    case "cut":
      return limitLabel(turn.endedBy);
    case "stopped":
      return "Answer stopped.";
    case "failed":
      return turn.problem?.title ?? "The answer failed.";
  }
}

/** What ended an answer that the model had not finished. */
export function limitLabel(endedBy: string | null): string {
  switch (endedBy) {
    case "max_output_tokens":
      return "Ended at the length limit.";
    case "deadline":
      return "Ended at the time limit.";
    default:
      return "Ended early.";
  }
}

/** The connection in a word or two, for the header. */
export function linkLabel(link: Link): string {
  switch (link.phase) {
    case "connecting":
      return link.epoch ? "Reconnecting" : "Connecting";
    case "open":
      return "Connected";
    case "backoff":
      return link.epoch ? "Reconnecting" : "Server not reached";
    case "resting":
      return "Resting";
    case "refused":
      return "Disconnected";
  }
}

/** What the place of an answer says before its first token. */
export function waitingLabel(turn: Turn): string {
  if (turn.status === "queued") return "Waiting for the connection";
  if (turn.status === "lost") return "Reconnecting: the answer goes on where it broke off";
  if (turn.ahead === null) return "Reading";
  return turn.ahead === 0 ? "Next in the queue" : `In the queue, ${formatCount(turn.ahead)} before this one`;
}
