/** Drives the reducer as the page does: frames of the server in, events to the server out. Knows no DOM and no socket. */
import { shown } from "../src/model/branches";
import type { Conversation, Turn } from "../src/model/conversation";
import { parseEvent, type ClientEvent } from "../src/model/protocol";
import { initialState, openConversation, type Action, type Line, type State, type Visit } from "../src/model/state";
import { update, type Effect } from "../src/model/update";

export const VISIT: Visit = {
  tab: "here",
  lastOpenId: null,
  freshId: "c0",
  at: 1000,
  page: "chat",
  keys: { main: "", left: "", right: "" },
};

export class Talk {
  state: State;
  effects: Effect[] = [];

  constructor(saved: readonly Conversation[] = [], visit: Partial<Visit> = {}) {
    this.state = initialState(saved, { ...VISIT, ...visit });
  }

  do(...actions: Action[]): this {
    for (const action of actions) {
      const next = update(this.state, action);
      this.state = next.state;
      this.effects.push(...next.effects);
    }
    return this;
  }

  ask(text: string, turnId = `t${this.turns().length}`): this {
    return this.do({ type: "ask", turnId, text });
  }

  /** One event as the server writes it, on the open conversation's lane unless it names another. */
  server(event: Record<string, unknown>): this {
    const parsed = parseEvent(JSON.stringify({ stream_id: this.state.openId, ...event }));
    return parsed ? this.do({ type: "socket-event", event: parsed }) : this;
  }

  answer(responseId: string, ...deltas: string[]): this {
    this.server({ type: "response.created", response: { id: responseId } });
    for (const delta of deltas) this.server({ type: "response.output_text.delta", delta });
    return this.server({ type: "response.completed", response: { id: responseId, usage: usage(100, 0, 5) } });
  }

  /** What was sent since the last call. */
  sent(line: Line = "main"): ClientEvent[] {
    const sends = this.effects.filter((effect) => effect.type === "send").filter((effect) => effect.line === line);
    const events = sends.map((effect) => effect.event);
    this.effects = [];
    return events;
  }

  open(): Conversation {
    return openConversation(this.state);
  }

  /** The branch that is shown. */
  turns(): readonly Turn[] {
    return shown(this.open());
  }

  last(): Turn {
    return this.turns().at(-1)!;
  }
}

export function usage(input: number, cached: number, output: number): Record<string, unknown> {
  return {
    input_tokens: input,
    input_tokens_details: { cached_tokens: cached },
    output_tokens: output,
    total_tokens: input + output,
    x_timing: { queue_ms: 0, prefill_ms: 10, ttft_ms: 12, decode_ms: 50, tokens_per_s: 100 },
  };
}

export const OPENED: Action = { type: "socket-opened" };
export const lost = (code = 1006): Action => ({ type: "socket-closed", code, random: 0.5 });
