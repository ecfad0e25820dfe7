/**
 * The life of the connection: connecting, open, waiting to try again, resting, refused.
 *
 * A pure reducer. Knows close codes and backoff. Does not know WebSocket, timers or randomness: the last is an
 * argument, and `update.ts` says what entering a phase asks of the world.
 */

export type Phase =
  | "connecting"
  | "open"
  /** Lost; another attempt is due after `delayMs`. */
  | "backoff"
  /** Closed for having been quiet; the next action of the person opens it again. */
  | "resting"
  /** Closed with a code that trying again will not cure; only the person can ask for another attempt. */
  | "refused";

export interface Link {
  phase: Phase;
  /** Counts opened sockets. Response ids are known to the server only on the socket that made them. */
  epoch: number;
  /** Attempts since the server last spoke to us. */
  attempt: number;
  delayMs: number;
  closeCode: number | null;
}

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;

export const KEY_REFUSED = 4401;
export const ACCESS_REFUSED = 4403;
/** Not the server's: it knows the key and gives no ticket for it. */
export const KEY_TOO_NARROW = 4997;

// Codes of our server that are not to be retried: what the client sent or who it is was wrong...
const REFUSALS = new Set([4400, KEY_REFUSED, ACCESS_REFUSED, KEY_TOO_NARROW, 4429]);
// ...or the socket was idle, too old, or too slow to read: nothing is wrong with opening another when there is a need.
const RESTS = new Set([4408, 4490, 4499]);

export const firstLink: Link = { phase: "connecting", epoch: 0, attempt: 0, delayMs: 0, closeCode: null };

export function opened(link: Link): Link {
  return { ...link, phase: "open", epoch: link.epoch + 1, closeCode: null };
}

/**
 * The server spoke: from here on a loss starts the backoff anew. Opening alone does not, or a server that accepts and
 * closes at once (overload) would be asked twice a second for ever.
 */
export function confirmed(link: Link): Link {
  return link.attempt === 0 ? link : { ...link, attempt: 0 };
}

/** `random` in [0, 1) spreads the attempts of many pages after a restart over half of the delay. */
export function closed(link: Link, code: number, random: number): Link {
  const lost = { ...link, closeCode: code };
  if (REFUSALS.has(code)) return { ...lost, phase: "refused" };
  if (RESTS.has(code)) return { ...lost, phase: "resting" };
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** link.attempt);
  return { ...lost, phase: "backoff", attempt: link.attempt + 1, delayMs: Math.round(longest * (0.5 + random / 2)) };
}

/** The delay is over, the network is back, or the person wants something: connect now unless that is under way. */
export function woken(link: Link): Link {
  return link.phase === "connecting" || link.phase === "open" ? link : { ...link, phase: "connecting" };
}
