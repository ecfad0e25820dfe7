/**
 * What is sent for a turn: only the new message where the server still has the rest, the whole history where not.
 *
 * Pure. Knows the request's shape. Does not know when it is sent.
 */
import { pathTo } from "./branches";
import type { Conversation, System, Turn } from "./conversation";
import type { CreateEvent, InputItem } from "./protocol";
import type { Sampling } from "./sampling";

/** The request for `turn` of the conversation on the socket of `epoch`. */
export function requestFor(conversation: Conversation, turn: Turn, epoch: number): CreateEvent {
  const earlier = pathTo(conversation, turn.id).slice(0, -1);
  const previous = turn.whole ? null : previousResponse(earlier, epoch);
  const input = previous ? [] : earlier.flatMap(itemsOf);
  return {
    type: "response.create",
    stream_id: conversation.id,
    input: [...input, { type: "message", role: "user", content: turn.question }],
    ...(previous ? { previous_response_id: previous } : systemFields(conversation.system)),
    ...samplingFields(conversation.sampling),
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

export function systemFields(system: System | null): Pick<CreateEvent, "prompt" | "instructions"> {
  if (system?.kind === "prompt")
    return { prompt: { id: system.id, ...(system.version === null ? {} : { version: system.version }) } };
  if (system?.kind === "own" && system.text.trim()) return { instructions: system.text };
  return {};
}

export function samplingFields(sampling: Sampling): Partial<CreateEvent> {
  const { temperature, topP, maxTokens, seed, stop } = sampling;
  return {
    ...(temperature === null ? {} : { temperature }),
    ...(topP === null ? {} : { top_p: topP }),
    ...(maxTokens === null ? {} : { max_output_tokens: maxTokens }),
    ...(seed === null ? {} : { seed }),
    ...(stop.length ? { stop: [...stop] } : {}),
  };
}
