/**
 * The events that cross the socket, as this page reads and writes them.
 *
 * Knows the wire names of OpenAI's Responses events and of our extensions (`x.*`). Does not know sockets, conversations
 * or what is shown. Whatever a server sends is read field by field: a field that is missing or of another type becomes
 * a default, an unknown event becomes null.
 */

import { count, number, record, text, type Fields } from "./fields";
import { readLive, type LiveEvent } from "./liveWire";

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

export interface InputItem {
  type: "message";
  role: "user" | "assistant";
  content: string;
}

export interface CreateEvent {
  type: "response.create";
  stream_id: string;
  input: InputItem[];
  previous_response_id?: string;
  prompt?: { id: string; version?: string };
  instructions?: string;
  temperature?: number;
  top_p?: number;
  max_output_tokens?: number;
  seed?: number;
  stop?: string[];
}

export interface CancelEvent {
  type: "response.cancel";
  response_id?: string;
  stream_id?: string;
}

/** What came after the event numbered `after`, and then what comes. */
export interface ResumeEvent {
  type: "x.resume";
  response_id: string;
  after: number;
  stream_id: string;
}

/** The lane is only for the answer to a refused subscription. */
export interface SubscribeEvent {
  type: "x.subscribe";
  topics: ("stats" | "tree" | "batch")[];
  max_hz: number;
  stream_id: string;
}

export interface UnsubscribeEvent {
  type: "x.unsubscribe";
}

export type ClientEvent = CreateEvent | CancelEvent | ResumeEvent | SubscribeEvent | UnsubscribeEvent;

/** One text frame of the server, or null for events this page has no use for (and for what is not an event). */
export function parseEvent(frame: string): ServerEvent | null {
  let json: unknown;
  try {
    json = JSON.parse(frame);
  } catch {
    return null;
  }
  const event = record(json);
  const streamId = text(event.stream_id);
  const of = { streamId, sequence: number(event.sequence_number) };
  const response = record(event.response);
  switch (event.type) {
    case "x.session":
      return {
        type: "session",
        model: text(event.model) ?? text(record(event.model).id),
        tenant: text(event.tenant),
        maxContextTokens: number(record(event.limits).max_context_tokens),
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
      return { type: "error", streamId, error: readError(record(event.error), number(event.status)) };
    case "x.stats":
    case "x.tree":
    case "x.batch":
      return readLive(event.type, event);
    default:
      return null;
  }
}

/** How many requests stand before this one; the position counts itself. */
function readAhead(event: Fields): number | null {
  const position = number(event.x_position);
  return position === null ? null : Math.max(0, position - 1);
}

function readCache(event: Fields): CacheReport {
  const by = record(event.by);
  return {
    promptTokens: count(event.prompt_tokens),
    cachedTokens: count(event.cached_tokens),
    by: { system: count(by.system), history: count(by.history), shared: count(by.shared) },
    savedMs: Math.max(0, number(event.est_ttft_saved_ms) ?? 0),
  };
}

function readEnding(kind: Ending["kind"], response: Fields): Ending {
  const usage = response.usage == null ? null : record(response.usage);
  // The timing extends the usage; a server that puts it beside the usage is understood as well.
  const timing = usage?.x_timing ?? response.x_timing;
  return {
    kind,
    reason: text(record(response.incomplete_details).reason),
    usage: usage && {
      inputTokens: count(usage.input_tokens),
      cachedTokens: count(record(usage.input_tokens_details).cached_tokens),
      outputTokens: count(usage.output_tokens),
    },
    timing: timing == null ? null : readTiming(record(timing)),
    error: kind === "failed" ? readError(record(response.error), null) : null,
  };
}

function readTiming(timing: Fields): Timing {
  return { ttftMs: number(timing.ttft_ms), tokensPerS: number(timing.tokens_per_s) };
}

function readError(error: Fields, status: number | null): WireError {
  return {
    status,
    code: text(error.code) ?? text(error.type) ?? "unknown",
    message: text(error.message) ?? "The server gave no reason.",
  };
}

