/**
 * What is sent for a turn: only the new message where the server still has the rest, the whole history where not.
 *
 * Pure. Knows the request's shape. Does not know when it is sent.
 */
import { lastTurn, type Conversation, type System, type Turn } from "./conversation";
import type { CreateEvent, InputItem } from "./protocol";

/** The request for the conversation's last turn on the socket of `epoch`; null when there is no turn. */
export function requestFor(conversation: Conversation, epoch: number): CreateEvent | null {
  const turn = lastTurn(conversation);
  if (!turn) return null;
  const earlier = conversation.turns.slice(0, -1);
  const previous = turn.whole ? null : previousResponse(earlier, epoch);
  const input = previous ? [] : earlier.flatMap(itemsOf);
  return {
    type: "response.create",
    stream_id: conversation.id,
    input: [...input, { type: "message", role: "user", content: turn.question }],
    ...(previous ? { previous_response_id: previous } : systemFields(conversation.system)),
  };
}

/** The response to go on from: the last turn's, if the server made it on this socket and it did not fail. */
function previousResponse(earlier: readonly Turn[], epoch: number): string | null {
  const last = earlier.at(-1);
  if (!last || last.epoch !== epoch || last.status === "failed") return null;
  return last.responseId;
}

/** A turn that brought no answer is left out: the model would otherwise see two questions in a row. */
function itemsOf(turn: Turn): InputItem[] {
  if (!turn.answer) return [];
  return [
    { type: "message", role: "user", content: turn.question },
    { type: "message", role: "assistant", content: turn.answer },
  ];
}

function systemFields(system: System | null): Pick<CreateEvent, "prompt" | "instructions"> {
  if (system?.kind === "prompt") return { prompt: { id: system.id } };
  if (system?.kind === "own" && system.text.trim()) return { instructions: system.text };
  return {};
}
