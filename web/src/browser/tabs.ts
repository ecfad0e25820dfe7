/**
 * Which of the tabs that have the page open are still there. Knows names only; a tab that does not answer is gone.
 */

export interface Channel {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent) => void) | null;
}

export interface Tabs {
  /** Reports `gone` unless the tab answers soon. */
  lookFor(tab: string): void;
  leave(): void;
}

const ANSWER_WITHIN_MS = 1500;
/** A tab that is being reloaded says goodbye too. */
const BACK_WITHIN_MS = 4000;

export function createTabs(
  own: string,
  channel: Channel,
  gone: (tab: string) => void,
  later: (run: () => void, ms: number) => void = setTimeout,
): Tabs {
  const looking = new Set<string>();

  function lookFor(tab: string): void {
    if (looking.has(tab)) return;
    looking.add(tab);
    channel.postMessage({ type: "who", tab });
    later(() => looking.delete(tab) && gone(tab), ANSWER_WITHIN_MS);
  }

  channel.onmessage = ({ data }) => {
    const { type, tab } = data as { type?: unknown; tab?: unknown };
    if (typeof tab !== "string") return;
    if (type === "who" && tab === own) channel.postMessage({ type: "here", tab });
    else if (type === "here") looking.delete(tab);
    else if (type === "bye") later(() => lookFor(tab), BACK_WITHIN_MS);
  };

  return { lookFor, leave: () => channel.postMessage({ type: "bye", tab: own }) };
}

/** Without such channels (very old browsers) nobody is heard. */
export function openChannel(): Channel {
  return typeof BroadcastChannel === "undefined"
    ? { postMessage: () => undefined, onmessage: null }
    : new BroadcastChannel("banyan.tabs");
}
