/**
 * The messages of the WebSocket, generated from the server's structs. Do not edit:
 * python -m backend.server.typescript web/src/model/wire.ts
 */

/** The viewer's requests, all with the ``admin`` scope; running ones first, in order of arrival. */
export interface Batch {
  type: "x.batch";
  lanes: BatchLane[];
}

/** A request in the engine. ``id``: the response's id when it is the viewer's own, else a name for drawing only. ``done`` of ``total`` tokens (prompt and answer so far) are computed; ``limit``: most that it may come to; ``chunk``: tokens that the steps in flight compute. */
export interface BatchLane {
  id: string;
  tenant: string;
  state: "preempted" | "prefilling" | "running" | "waiting";
  done: number;
  total: number;
  limit: number;
  chunk: number;
}

/** Where the prompt's tokens came from. ``est_ttft_saved_ms`` is None until this server has measured its prefill. */
export interface Cache {
  type: "x.cache";
  prompt_tokens: number;
  cached_tokens: number;
  by: CachedBy;
  est_ttft_saved_ms: number | null;
  sequence_number: number;
  stream_id?: string;
}

/** Cached tokens from the front: of the system prompt, of this conversation before, and the rest. */
export interface CachedBy {
  system: number;
  history: number;
  shared: number;
}

/** The model ended its turn, or a stop string did. */
export interface Completed {
  type: "response.completed";
  response: Response;
  sequence_number: number;
  stream_id?: string;
}

/** A part of a message: ``input_text``, ``output_text`` or ``text``. */
export interface ContentPart {
  type: string;
  text?: string;
}

/** The request was accepted. */
export interface Created {
  type: "response.created";
  response: Response;
  sequence_number: number;
  stream_id?: string;
}

/** A request was refused. The socket stays open. */
export interface Error {
  type: "error";
  status: number;
  error: ErrorBody;
  stream_id?: string;
}

/** The four fields of OpenAI's errors. */
export interface ErrorBody {
  type: string;
  code: string;
  message: string;
  param: string | null;
}

/** The engine failed this response. */
export interface Failed {
  type: "response.failed";
  response: Response;
  sequence_number: number;
  stream_id?: string;
}

/** The engine runs the request. */
export interface InProgress {
  type: "response.in_progress";
  response: Response;
  sequence_number: number;
  stream_id?: string;
}

/** Why an answer is not whole: ``max_output_tokens``, ``cancelled`` or ``deadline``. */
export interface Incomplete {
  reason: string;
}

/** A message of the conversation. */
export interface InputItem {
  type?: string;
  role?: string;
  content?: string | ContentPart[] | null;
}

/** ``cached_tokens``: prompt tokens that were not computed for this request. */
export interface InputTokensDetails {
  cached_tokens: number;
}

/** The message begins. */
export interface ItemAdded {
  type: "response.output_item.added";
  output_index: number;
  item: OutputMessage;
  sequence_number: number;
  stream_id?: string;
}

/** The message is whole. */
export interface ItemDone {
  type: "response.output_item.done";
  output_index: number;
  item: OutputMessage;
  sequence_number: number;
  stream_id?: string;
}

/** The one output item of an answer. */
export interface OutputMessage {
  type: "message";
  id: string;
  status: "completed" | "failed" | "in_progress" | "incomplete" | "queued";
  content: OutputText[];
  role?: string;
}

/** The text of an answer. */
export interface OutputText {
  type: "output_text";
  text?: string;
  annotations?: unknown[];
  logprobs?: unknown[];
}

/** No model served here thinks apart from its text. */
export interface OutputTokensDetails {
  reasoning_tokens?: number;
}

/** KV pages. ``held``: by requests that run; ``cached``: in the tree and held by nobody. ``free``, ``pinned`` and ``total`` are of the whole pool, None for who sees one tenant; ``total`` = ``free`` + ``held`` + ``cached``. */
export interface Pages {
  held: number;
  cached: number;
  free: number | null;
  pinned: number | null;
  total: number | null;
}

/** Its text begins. */
export interface PartAdded {
  type: "response.content_part.added";
  item_id: string;
  output_index: number;
  content_index: number;
  part: OutputText;
  sequence_number: number;
  stream_id?: string;
}

/** The part is whole. */
export interface PartDone {
  type: "response.content_part.done";
  item_id: string;
  output_index: number;
  content_index: number;
  part: OutputText;
  sequence_number: number;
  stream_id?: string;
}

/** ``x.ping``; ``t`` comes back as it was. */
export interface Ping {
  type: "x.ping";
  t?: number | string | null;
  stream_id?: string | null;
}

/** The only format served. */
export interface PlainText {
  type: "text";
}

/** The answer to ``x.ping``. */
export interface Pong {
  type: "x.pong";
  t: number | string | null;
  stream_id?: string;
}

/** A registered system prompt. */
export interface PromptReference {
  id: string;
  version?: string | null;
  variables?: Record<string, unknown> | null;
}

/** The engine is busy. ``x_position``: requests before it when it came, itself counted. */
export interface Queued {
  type: "response.queued";
  response: Response;
  x_position: number;
  sequence_number: number;
  stream_id?: string;
}

/** ``reasoning`` of a request. */
export interface Reasoning {
  effort?: string | null;
}

/** OpenAI's response object. */
export interface Response {
  id: string;
  created_at: number;
  status: "completed" | "failed" | "in_progress" | "incomplete" | "queued";
  model: string;
  object?: string;
  output?: OutputMessage[];
  error?: ResponseError | null;
  incomplete_details?: Incomplete | null;
  instructions?: string | null;
  max_output_tokens?: number | null;
  metadata?: Record<string, string>;
  parallel_tool_calls?: boolean;
  previous_response_id?: string | null;
  store?: boolean;
  temperature: number;
  text?: TextConfig;
  tool_choice?: string;
  tools?: unknown[];
  top_p: number;
  truncation?: string;
  usage?: Usage | null;
}

/** ``response.cancel``: one response, by its id or by its lane. */
export interface ResponseCancel {
  type: "response.cancel";
  response_id?: string | null;
  stream_id?: string | null;
}

/** ``response.create``, and the body of ``POST /v1/responses``. Fields that would change the answer and are not served are here to be refused. */
export interface ResponseCreate {
  type: "response.create";
  stream_id?: string | null;
  model?: string | null;
  input?: string | InputItem[] | null;
  instructions?: string | null;
  previous_response_id?: string | null;
  prompt?: PromptReference | null;
  max_output_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
  ignore_eos?: boolean | null;
  metadata?: Record<string, string> | null;
  generate?: boolean | null;
  text?: TextOptions | null;
  reasoning?: Reasoning | null;
  tools?: unknown[] | null;
  tool_choice?: unknown;
  top_logprobs?: number | null;
  include?: string[] | null;
  background?: boolean | null;
  conversation?: unknown;
  truncation?: string | null;
  store?: boolean | null;
  stream?: boolean | null;
}

/** Why a response failed. ``x_retry_after_s``: seconds until trying again makes sense, where that is known. */
export interface ResponseError {
  code: string;
  message: string;
  x_retry_after_s?: number;
}

/** ``x.resume``: the events of a response after the last ``sequence_number`` seen (-1: none), then what follows. */
export interface Resume {
  type: "x.resume";
  response_id: string;
  after?: number;
}

/** What a client should keep to. */
export interface SessionLimits {
  message_bytes: number;
  lanes: number;
  max_context_tokens: number;
  idle_seconds: number;
  age_seconds: number;
  resume_seconds: number;
}

/** Sent once, with our subprotocol. */
export interface SessionOpened {
  type: "x.session";
  tenant: string;
  model: string;
  limits: SessionLimits;
}

/** Figures now. ``of``: one tenant's requests, pages and tokens, or the whole server's. ``evictions`` (pages), ``preemptions``: since start. ``step_ms``: of the last step that ran; ``steps_per_s``, ``tokens_per_s`` (drawn): since the figures before, None in the first ones. Evictions, preemptions and steps are all tenants' work: None for who sees one. */
export interface Stats {
  type: "x.stats";
  of: "server" | "tenant";
  running: number;
  prefilling: number;
  waiting: number;
  pages: Pages;
  hits: TokenClasses;
  misses: TokenClasses;
  evictions: number | null;
  preemptions: number | null;
  step_ms: number | null;
  steps_per_s: number | null;
  tokens_per_s: number | null;
}

/** ``x.subscribe``: these topics, at most ``max_hz`` events of each a second; replaces an earlier one of a topic. */
export interface Subscribe {
  type: "x.subscribe";
  topics: ("batch" | "stats" | "tree")[];
  max_hz?: number;
}

/** ``text`` of a response. */
export interface TextConfig {
  format?: PlainText;
}

/** More text; whole characters. */
export interface TextDelta {
  type: "response.output_text.delta";
  item_id: string;
  output_index: number;
  content_index: number;
  delta: string;
  logprobs?: unknown[];
  sequence_number: number;
  stream_id?: string;
}

/** The whole text. */
export interface TextDone {
  type: "response.output_text.done";
  item_id: string;
  output_index: number;
  content_index: number;
  text: string;
  logprobs?: unknown[];
  sequence_number: number;
  stream_id?: string;
}

/** Only ``text`` is served. */
export interface TextFormat {
  type?: string;
}

/** ``text`` of a request. */
export interface TextOptions {
  format?: TextFormat | null;
  verbosity?: string | null;
}

/** Milliseconds as the server saw them; None where nothing was measured. ``tokens_per_s``: of decoding. */
export interface Timing {
  queue_ms: number | null;
  prefill_ms: number | null;
  ttft_ms: number | null;
  decode_ms: number | null;
  tokens_per_s: number | null;
}

/** Prompt tokens since start by class. Of those found: ``new`` is 0; of those computed: ``shared`` is 0. */
export interface TokenClasses {
  system: number;
  history: number;
  shared: number;
  new: number;
}

/** The cache as the viewer may see it, parents first. ``hidden_pages`` did not fit, ``other_pages`` are others'. */
export interface Tree {
  type: "x.tree";
  nodes: TreeNode[];
  hidden_pages: number;
  other_pages: number;
}

/** A run of cached tokens. ``parent``: 0 for none. ``tenant``: None when public. ``pinned``: "", "soft" or "hard". ``idle``: releases of others since it was last held. ``preview``: how its text begins, None where the viewer may not read it. */
export interface TreeNode {
  id: number;
  parent: number;
  tenant: string | null;
  tokens: number;
  pages: number;
  depth_tokens: number;
  locks: number;
  pinned: string;
  hits: number;
  idle: number;
  preview: string | null;
}

/** The answer was cut short; ``incomplete_details`` says by what. */
export interface Unfinished {
  type: "response.incomplete";
  response: Response;
  sequence_number: number;
  stream_id?: string;
}

/** ``x.unsubscribe``: no more of these topics; of all when none is named. */
export interface Unsubscribe {
  type: "x.unsubscribe";
  topics?: ("batch" | "stats" | "tree")[];
}

/** Tokens and times of a response. */
export interface Usage {
  input_tokens: number;
  input_tokens_details: InputTokensDetails;
  output_tokens: number;
  output_tokens_details: OutputTokensDetails;
  total_tokens: number;
  x_timing: Timing;
}

export type ClientEvent = ResponseCreate | ResponseCancel | Resume | Subscribe | Unsubscribe | Ping;

export type ServerEvent = Queued | Created | Cache | InProgress | ItemAdded | PartAdded | TextDelta | TextDone | PartDone | ItemDone | Completed | Unfinished | Failed | Error | SessionOpened | Pong | Stats | Tree | Batch;
