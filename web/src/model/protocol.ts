/**
 * The events that cross the socket, as this page reads and writes them.
 *
 * Knows the wire names of OpenAI's Responses events and of our extensions (`x.*`), held against the generated
 * `wire.ts`. Does not know sockets, conversations or what is shown. Whatever a server sends is read field by field: a
 * field that is missing or of another type becomes a default, an unknown event becomes null.
 */
import { count, number, record, text, type Unread } from "./fields";
import { readLive, type LiveEvent } from "./liveWire";
import type * as wire from "./wire";

/** The subprotocol we offer; with it the server sends extension events unasked. */
export const SUBPROTOCOL = "banyan.v1";

/** Where the tokens of a prompt came from, known before the first one is generated. */
export interface CacheReport {
  promptTokens: number;
  cachedTokens: number;
  by: { system: number; history: number; shared: number };
  savedMs: number;
}

export interface Usage {
  inputTokens: number;
  cachedTokens: number;
  outputTokens: number;
}

/** null where there was nothing to measure: an answer of one token has no rate. */
export interface Timing {
  ttftMs: number | null;
  tokensPerS: number | null;
}

export interface WireError {
  status: number | null;
  code: string;
  message: string;
}

/** How a response ended. `reason` is set when it is incomplete, `error` when it failed. */
export interface Ending {
  kind: "completed" | "incomplete" | "failed";
  reason: string | null;
  usage: Usage | null;
  timing: Timing | null;
  error: WireError | null;
}

interface OfResponse {
  /** The lane the response runs on, as the client named it. */
  streamId: string | null;
  /** Per response, rising; null from a server that does not count. */
  sequence: number | null;
}

/** What the server says of itself when the socket opens. */
export interface SessionReport {
  model: string | null;
  tenant: string | null;
  maxContextTokens: number | null;
}

export type ServerEvent =
  | ({ type: "session" } & SessionReport)
  | ({ type: "queued"; responseId: string | null; ahead: number | null } & OfResponse)
  | ({ type: "created"; responseId: string; drawn: Drawn } & OfResponse)
  | ({ type: "cache"; cache: CacheReport } & OfResponse)
  | ({ type: "delta"; text: string } & OfResponse)
  | ({ type: "ended"; ending: Ending } & OfResponse)
  | { type: "error"; error: WireError; streamId: string | null }
  | LiveEvent;

/** How the server draws tokens for a response: what was asked for, else its defaults. */
export interface Drawn {
  temperature: number | null;
  topP: number | null;
}

export interface InputItem extends wire.InputItem {
  type: "message";
  role: "user" | "assistant";
  content: string;
}

/** What this page asks for, of what may be asked for. */
export interface CreateEvent extends wire.ResponseCreate {
  stream_id: string;
  input: InputItem[];
}

export type CancelEvent = wire.ResponseCancel;

/** What came after the event numbered `after`, and then what comes. The lane is that of a refusal. */
export type ResumeEvent = wire.Resume & { after: number; stream_id: string };

export type SubscribeEvent = wire.Subscribe & { stream_id: string };

export type ClientEvent = CreateEvent | CancelEvent | ResumeEvent | SubscribeEvent | wire.Unsubscribe;

/** One text frame of the server, or null for events this page has no use for (and for what is not an event). */
export function parseEvent(frame: string): ServerEvent | null {
  let json: unknown;
  try {
    json = JSON.parse(frame);
  } catch {
    return null;
  }
  const event = record<wire.ServerEvent>(json);
  const streamId = text(event.stream_id);
  const of = { streamId, sequence: number(event.sequence_number) };
  const response = record<wire.Response>(event.response);
  switch (event.type) {
    case "x.session":
      return {
        type: "session",
        model: text(event.model),
        tenant: text(event.tenant),
        maxContextTokens: number(record<wire.SessionLimits>(event.limits).max_context_tokens),
      };
    case "response.queued":
      return { type: "queued", ...of, responseId: text(response.id), ahead: readAhead(event) };
    case "response.created": {
      const drawn = { temperature: number(response.temperature), topP: number(response.top_p) };
      return { type: "created", ...of, responseId: text(response.id) ?? "", drawn };
    }
    case "x.cache":
      return { type: "cache", ...of, cache: readCache(event) };
    case "response.output_text.delta":
      return { type: "delta", ...of, text: text(event.delta) ?? "" };
    case "response.completed":
      return { type: "ended", ...of, ending: readEnding("completed", response) };
    case "response.incomplete":
      return { type: "ended", ...of, ending: readEnding("incomplete", response) };
    case "response.failed":
      return { type: "ended", ...of, ending: readEnding("failed", response) };
    case "error":
      return { type: "error", streamId, error: readError(record<wire.ErrorBody>(event.error), number(event.status)) };
    case "x.stats":
    case "x.tree":
    case "x.batch":
      return readLive(event.type, event);
    default:
      return null;
  }
}

/** How many requests stand before this one; the position counts itself. */
function readAhead(event: Unread<wire.Queued>): number | null {
  const position = number(event.x_position);
  return position === null ? null : Math.max(0, position - 1);
}

function readCache(event: Unread<wire.Cache>): CacheReport {
  const by = record<wire.CachedBy>(event.by);
  return {
    promptTokens: count(event.prompt_tokens),
    cachedTokens: count(event.cached_tokens),
    by: { system: count(by.system), history: count(by.history), shared: count(by.shared) },
    savedMs: Math.max(0, number(event.est_ttft_saved_ms) ?? 0),
  };
}

function readEnding(kind: Ending["kind"], response: Unread<wire.Response>): Ending {
  const usage = response.usage == null ? null : record<wire.Usage>(response.usage);
  return {
    kind,
    reason: text(record<wire.Incomplete>(response.incomplete_details).reason),
    usage: usage && {
      inputTokens: count(usage.input_tokens),
      cachedTokens: count(record<wire.InputTokensDetails>(usage.input_tokens_details).cached_tokens),
      outputTokens: count(usage.output_tokens),
    },
    timing: usage?.x_timing == null ? null : readTiming(record<wire.Timing>(usage.x_timing)),
    error: kind === "failed" ? readError(record<wire.ResponseError>(response.error), null) : null,
  };
}

function readTiming(timing: Unread<wire.Timing>): Timing {
  return { ttftMs: number(timing.ttft_ms), tokensPerS: number(timing.tokens_per_s) };
}

function readError(error: Unread<wire.ErrorBody | wire.ResponseError>, status: number | null): WireError {
  return {
    status,
    code: text(error.code) ?? text(error.type) ?? "unknown",
    message: text(error.message) ?? "The server gave no reason.",
  };
}
