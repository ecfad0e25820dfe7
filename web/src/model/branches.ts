/**
 * Moving in a conversation's tree: what is shown, which branches there are, how one is added or cut off.
 *
 * Pure. Knows parents and the head. Does not know what turns say.
 */
import type { Conversation, Turn } from "./conversation";

/** The turns that are shown: from the beginning to the head. */
export function shown(conversation: Conversation): Turn[] {
  return conversation.head === null ? [] : pathTo(conversation, conversation.head);
}

export function pathTo(conversation: Conversation, id: string): Turn[] {
  const byId = new Map(conversation.turns.map((turn) => [turn.id, turn]));
  const path: Turn[] = [];
  // Each turn once at most: a copy from elsewhere may hold a circle.
  for (let turn = byId.get(id); turn && path.length < byId.size; turn = byId.get(turn.parent ?? "")) path.push(turn);
  return path.reverse();
}

export function lastShown(conversation: Conversation): Turn | null {
  return conversation.turns.find(({ id }) => id === conversation.head) ?? null;
}

/** The turn and the other ones that follow the same parent, oldest first. */
export function branchesAt(conversation: Conversation, turn: Turn): Turn[] {
  return conversation.turns.filter(({ parent }) => parent === turn.parent);
}

/** Another branch of `turn`, `by` places on, with the newest of what followed it; unchanged where there is none. */
export function switched(conversation: Conversation, turnId: string, by: number): Conversation {
  const turn = conversation.turns.find(({ id }) => id === turnId);
  if (!turn) return conversation;
  const branches = branchesAt(conversation, turn);
  const target = branches[branches.indexOf(turn) + by];
  return target ? { ...conversation, head: newestLeaf(conversation, target.id) } : conversation;
}

/** `turn`, at the end of its branch, which is then the one that is shown. */
export function grown(conversation: Conversation, turn: Turn): Conversation {
  return { ...conversation, turns: [...conversation.turns, turn], head: turn.id };
}

/** Without the turn and all that followed it; a neighbouring branch is shown, else what came before. */
export function pruned(conversation: Conversation, turnId: string): Conversation {
  const turn = conversation.turns.find(({ id }) => id === turnId);
  if (!turn) return conversation;
  const doomed = new Set([turnId]);
  // Parents stand before what follows them, so that one pass finds all.
  for (const { id, parent } of conversation.turns) if (parent !== null && doomed.has(parent)) doomed.add(id);
  const turns = conversation.turns.filter(({ id }) => !doomed.has(id));
  const left = { ...conversation, turns, gone: [...conversation.gone, ...doomed] };
  if (conversation.head !== null && !doomed.has(conversation.head)) return left;
  const neighbours = branchesAt(conversation, turn).filter(({ id }) => id !== turnId);
  const place = branchesAt(conversation, turn).indexOf(turn);
  const neighbour = neighbours[Math.max(0, place - 1)];
  return { ...left, head: neighbour ? newestLeaf(left, neighbour.id) : turn.parent };
}

/** The end of the newest branch that begins with the turn `from`. */
export function newestLeaf(conversation: Conversation, from: string): string {
  const { turns } = conversation;
  let leaf = from;
  for (let steps = turns.length; steps > 0; steps--) {
    const next = turns.findLast(({ parent }) => parent === leaf);
    if (!next) break;
    leaf = next.id;
  }
  return leaf;
}
