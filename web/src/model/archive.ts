/**
 * Conversations as they are kept between visits: one key each, so that two open tabs do not overwrite one another.
 *
 * Knows the stored format and which conversations changed. Any `Storage`-like map will do; a full or forbidden one is
 * tolerated, for the page works without.
 */
import { failed, isActive, lastTurn, withLastTurn, type Conversation } from "./conversation";
import { pageReloaded } from "./problems";

export interface Shelf {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

const PREFIX = "banyan.conversation.1.";

/** All that are kept, newest first. Entries that cannot be read are skipped. */
export function load(shelf: Shelf): Conversation[] {
  const keys = Array.from({ length: shelf.length }, (_, index) => shelf.key(index));
  return keys
    .filter((key) => key !== null)
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => read(shelf.getItem(key)))
    .filter((conversation) => conversation !== null)
    .sort((a, b) => b.createdAt - a.createdAt);
}

/** Writes what differs between two lists. Returns false when the shelf is full or closed. */
export function save(shelf: Shelf, before: readonly Conversation[], after: readonly Conversation[]): boolean {
  const kept = new Set(after.map(({ id }) => id));
  const old = new Set(before);
  try {
    for (const { id } of before) if (!kept.has(id)) shelf.removeItem(PREFIX + id);
    for (const conversation of after) {
      if (!old.has(conversation)) shelf.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    }
    return true;
  } catch {
    return false;
  }
}

function read(text: string | null): Conversation | null {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "");
  } catch {
    return null;
  }
  return isConversation(value) ? settle(value) : null;
}

/** Response ids belong to a socket of the earlier visit, and what was running then no longer is. */
function settle(conversation: Conversation): Conversation {
  const turns = conversation.turns.map((turn) => ({ ...turn, responseId: null, epoch: 0 }));
  const settled = { ...conversation, turns };
  return isActive(lastTurn(settled)) ? withLastTurn(settled, (turn) => failed(turn, pageReloaded)) : settled;
}

function isConversation(value: unknown): value is Conversation {
  if (typeof value !== "object" || value === null) return false;
  const { id, createdAt, turns, draft } = value as Record<string, unknown>;
  return (
    typeof id === "string" &&
    typeof createdAt === "number" &&
    typeof draft === "string" &&
    Array.isArray(turns) &&
    turns.every(isTurn)
  );
}

function isTurn(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { id, question, answer, status } = value as Record<string, unknown>;
  return [id, question, answer, status].every((field) => typeof field === "string");
}
