/**
 * Conversations as they are kept between visits: one key each.
 *
 * Knows the stored format, which conversations changed, and that another tab may have written in between: what stands
 * there is taken in, not overwritten. Any `Storage`-like map will do; a full or forbidden one is tolerated, for the
 * page works without.
 */
import type { Conversation } from "./conversation";
import { merged } from "./merge";
import { readConversation } from "./revive";

export interface Shelf {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

const PREFIX = "banyan.conversation.1.";

/** The conversation that a storage key belongs to; null for other keys. */
export function idOfKey(key: string): string | null {
  return key.startsWith(PREFIX) ? key.slice(PREFIX.length) : null;
}

/** All that are kept, newest first. Entries that cannot be read are skipped. */
export function load(shelf: Shelf): Conversation[] {
  const keys = Array.from({ length: shelf.length }, (_, index) => shelf.key(index));
  return keys
    .filter((key) => key !== null)
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => readKept(shelf.getItem(key)))
    .filter((conversation) => conversation !== null)
    .sort((a, b) => b.createdAt - a.createdAt);
}

export function readKept(text: string | null): Conversation | null {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "");
  } catch {
    return null;
  }
  return readConversation(value);
}

export interface Saved {
  /** False when the shelf is full or closed: what was to be kept is not. */
  kept: boolean;
  /** Conversations that another tab had taken further, with both tabs' turns. */
  taken: Conversation[];
}

/** Writes what differs between two lists. */
export function save(shelf: Shelf, before: readonly Conversation[], after: readonly Conversation[]): Saved {
  const left = new Set(after.map(({ id }) => id));
  const old = new Set(before);
  const taken: Conversation[] = [];
  try {
    for (const { id } of before) if (!left.has(id)) shelf.removeItem(PREFIX + id);
    for (const conversation of after) {
      if (old.has(conversation)) continue;
      const theirs = readKept(shelf.getItem(PREFIX + conversation.id));
      const both = theirs ? merged(conversation, theirs) : conversation;
      if (both !== conversation) taken.push(both);
      shelf.setItem(PREFIX + conversation.id, JSON.stringify(both));
    }
    return { kept: true, taken };
  } catch {
    return { kept: false, taken };
  }
}
