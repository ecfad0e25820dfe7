/**
 * What went wrong, in words, with the next step. Knows error codes and close codes; nothing of how they are shown.
 */
import { KEY_TOO_NARROW, type Link } from "./link";
import type { WireError } from "./protocol";
import type { State } from "./state";

export interface Problem {
  title: string;
  advice: string;
  /** Whether asking the same again may help. */
  retry: boolean;
}

const ADVICE: Record<string, Omit<Problem, "retry"> & { retry?: boolean }> = {
  context_length_exceeded: {
    title: "This conversation is longer than the model can read",
    advice: "Start a new conversation, or ask with a shorter text.",
  },
  model_not_found: { title: "The model is not served here", advice: "Reload the page to see which one is." },
  rate_limit_exceeded: { title: "Too many requests", advice: "Wait a moment, then try again.", retry: true },
  insufficient_quota: { title: "The quota is used up", advice: "Ask whoever runs this server for more." },
  server_overloaded: { title: "The server is busy", advice: "Wait a moment, then try again.", retry: true },
  server_draining: { title: "The server is restarting", advice: "Try again in a moment.", retry: true },
  engine_error: {
    title: "The engine failed",
    advice: "Try again. If it stays, look at the server's log.",
    retry: true,
  },
  message_too_big: { title: "The message is too big", advice: "Ask with a shorter text, or start a new conversation." },
  prompt_not_found: {
    title: "The server no longer has this system prompt",
    advice: "Start a new conversation and choose another one.",
  },
  prompt_locked: {
    title: "This tenant answers only under its own system prompts",
    advice: "Start a new conversation and choose one of the listed ones.",
  },
  insufficient_scope: {
    title: "This key may not do that",
    advice: "Ask whoever runs this server for a key with a wider scope.",
  },
  database_unavailable: {
    title: "The server's database is not available",
    advice: "Try again in a moment.",
    retry: true,
  },
  websocket_stream_limit_reached: {
    title: "Too many answers at once",
    advice: "Wait until another answer is finished, or stop it, then try again.",
    retry: true,
  },
  websocket_connection_limit_reached: {
    title: "Too many open connections",
    advice: "Close other tabs of this page, then try again.",
    retry: true,
  },
};

/** An error event or a failed response. The server's own message is kept: it names what is wrong. */
export function fromServer(error: WireError): Problem {
  const known = ADVICE[error.code];
  const message = error.message.trim();
  if (known) return { title: known.title, advice: join(message, known.advice), retry: known.retry ?? false };
  const transient = error.status === null || error.status >= 500;
  return {
    title: transient ? "The server could not answer" : "The server did not accept this request",
    advice: join(message, transient ? "Try again in a moment." : "Change the text and try again."),
    retry: true,
  };
}

/** What a close code means for an answer that was being written. */
export function fromLoss(code: number): Problem {
  if (code === MESSAGE_TOO_BIG) return { ...ADVICE.message_too_big!, retry: false };
  return {
    title: "The connection was lost while this was being answered",
    advice: "Try again: the page reconnects by itself.",
    retry: true,
  };
}

export const MESSAGE_TOO_BIG = 1009;

export const pageReloaded: Problem = {
  title: "The page was closed while this was being answered",
  advice: "Try again to have it answered anew.",
  retry: true,
};

export const notResumed: Problem = {
  title: "The rest of this answer is lost",
  advice: "The server no longer has it: it was restarted, or the connection was away too long. Try again.",
  retry: true,
};

export const storageFull: Problem = {
  title: "This browser has no more room for conversations",
  advice: "Export what you want to keep, then delete some. What is new is lost when the page is closed.",
  retry: false,
};

export const fileUnread: Problem = {
  title: "This file holds no conversation",
  advice: "Choose a JSON or Markdown file that was exported here.",
  retry: false,
};

export const keyRefused: Problem = {
  title: "The server does not know this key",
  advice: "Look whether it was copied whole and has not expired or been revoked.",
  retry: false,
};

export const keyEnded: Problem = {
  title: "This key is no longer valid",
  advice: "It was revoked or has expired. Sign in with another one: your conversations are still here.",
  retry: false,
};

export const keyTooNarrow: Problem = {
  title: "This key may not chat",
  advice: "Use one that has the scope “chat”. Whoever runs this server hands them out.",
  retry: false,
};

/** Why the page asks for a key, where it is more than that there is none. */
export function ofSignIn(signIn: State["signIn"]): Problem | null {
  switch (signIn) {
    case "refused":
      return keyRefused;
    case "ended":
      return keyEnded;
    case "narrow":
      return keyTooNarrow;
    default:
      return null;
  }
}

/** Why the live page stays empty. */
export function fromLiveRefusal(error: WireError): Problem {
  if (error.code === "insufficient_scope")
    return { title: "This key may not look into the cache", advice: "Ask for a key with a wider scope.", retry: false };
  if (error.code === "unknown_event")
    return {
      title: "This server does not show its cache",
      advice: "It is older than this page: update it and reload.",
      retry: false,
    };
  return fromServer(error);
}

export const promptsUnread: Problem = {
  title: "The list of system prompts could not be loaded",
  advice: "You can still write your own. Reload the page to try again.",
  retry: false,
};

/** A close code after which the page does not reconnect by itself. */
export function fromRefusal(code: number | null): Problem {
  switch (code) {
    case 4401:
      return { title: "The access key is no longer valid", advice: "Sign in with another one.", retry: true };
    case KEY_TOO_NARROW:
      return keyTooNarrow;
    case 4403:
      return {
        title: "This page may not talk to the server",
        advice: "Open it from the server's own address.",
        retry: true,
      };
    case 4429:
      return {
        title: "The server closed the connection: too many requests",
        advice: "Wait a minute, then try again.",
        retry: true,
      };
    default:
      return {
        title: "The server closed the connection",
        advice: "Reload the page: it may be older than the server.",
        retry: true,
      };
  }
}

/** What to say above the conversation while there is no connection; null while all is well or may soon be. */
export function ofLink(link: Link): Problem | null {
  if (link.phase === "refused") return fromRefusal(link.closeCode);
  if (link.phase === "open" || link.phase === "resting" || link.attempt < 3) return null;
  return {
    title: "The server does not answer",
    advice: "Look whether it is running. The page keeps trying; what you have written stays here.",
    retry: true,
  };
}

/** The message as a sentence, then the advice. */
function join(message: string, advice: string): string {
  if (!message) return advice;
  const sentence = message[0]!.toUpperCase() + message.slice(1);
  return `${/[.!?]$/.test(sentence) ? sentence : `${sentence}.`} ${advice}`;
}
