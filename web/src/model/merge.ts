/**
 * Two copies of one conversation made into one that holds the turns of both, so that two tabs never lose each other's.
 *
 * Pure. Turns have ids and parents, so that what was asked in two tabs stands side by side as branches.
 */
import { newestLeaf } from "./branches";
import { isActive, type Conversation, type Turn } from "./conversation";

/** `ours` with what `theirs` has more of; `ours` itself where that is nothing. Draft and shown branch stay ours. */
export function merged(ours: Conversation, theirs: Conversation): Conversation {
  const gone = [...new Set([...ours.gone, ...theirs.gone])];
  const deleted = new Set(gone);
  const byId = new Map(theirs.turns.map((turn) => [turn.id, turn]));
  const kept = ours.turns.filter(({ id }) => !deleted.has(id));
  const known = new Set(kept.map(({ id }) => id));
  const added = theirs.turns.filter(({ id }) => !deleted.has(id) && !known.has(id));
  const turns = [...kept.map((turn) => further(turn, byId.get(turn.id))), ...added];
  const newer = theirs.edition > ours.edition ? theirs : ours;
  const same =
    newer === ours &&
    gone.length === ours.gone.length &&
    turns.length === ours.turns.length &&
    turns.every((turn, index) => turn === ours.turns[index]);
  if (same) return ours;
  const { title, system, sampling, edition } = newer;
  const both = { ...ours, title, system, sampling, edition, turns, gone };
  return { ...both, head: headOf(both, theirs) };
}

/** Of two copies of a turn the one that knows more: an ended one, else the one that has seen more events. */
function further(ours: Turn, theirs: Turn | undefined): Turn {
  if (!theirs || !isActive(ours)) return ours;
  if (!isActive(theirs)) return theirs;
  const more = theirs.sequence > ours.sequence || theirs.answer.length > ours.answer.length;
  return more || (theirs.tab !== ours.tab && theirs.sequence === ours.sequence && older(theirs, ours)) ? theirs : ours;
}

/** Any order will do as long as both tabs agree on it. */
function older(a: Turn, b: Turn): boolean {
  return (a.tab ?? "") > (b.tab ?? "");
}

/** The branch shown here; a turn added to its end elsewhere is shown too, and a deleted one is not. */
function headOf(both: Conversation, theirs: Conversation): string | null {
  const there = (id: string | null): id is string => both.turns.some((turn) => turn.id === id);
  if (there(both.head)) return newestLeaf(both, both.head);
  if (there(theirs.head)) return theirs.head;
  return both.turns.at(-1)?.id ?? null;
}
