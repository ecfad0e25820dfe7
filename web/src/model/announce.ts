/**
 * What a screen reader is told, politely and once per change: states, never single tokens. Pure.
 */
import { formatCount } from "./cache";
import { lastTurn } from "./conversation";
import type { Link } from "./link";
import { fromRefusal } from "./problems";
import { openConversation, type State } from "./state";

/** The sentence for the state as it is; the live region speaks when it changes. */
export function announcement(state: State): string {
  const turn = lastTurn(openConversation(state));
  if (state.link.phase === "backoff") return "No connection to the server. Trying again.";
  if (state.link.phase === "refused") return fromRefusal(state.link.closeCode).title;
  if (state.notice) return state.notice.title;
  switch (turn?.status) {
    case undefined:
      return "";
    case "queued":
      return "Waiting for the connection.";
    case "waiting":
    case "streaming":
    case "stopping":
      return "Answering.";
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
