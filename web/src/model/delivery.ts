/**
 * How one turn gets to the server and back although connections break: sent, asked for anew, given up.
 *
 * Pure. Knows a single turn. Does not know whose it is: conversations and the comparison use it alike.
 */
import { failed, isActive, isRunning, newTurn, stopped, type Turn } from "./conversation";
import { fromLoss, fromRefusal, fromServer, MESSAGE_TOO_BIG, notResumed, pageReloaded } from "./problems";
import type { ClientEvent, CreateEvent, WireError } from "./protocol";

/** A request under which connections break again and again is not sent for ever. */
const MOST_LOSSES = 3;

/** What is due for a turn now that there is a socket, or null; `request` writes it in full. */
export function dueEvent(turn: Turn, lane: string, request: () => CreateEvent): ClientEvent | null {
  if (turn.status === "queued") return request();
  if (turn.status !== "lost" || turn.responseId === null) return null;
  return { type: "x.resume", response_id: turn.responseId, after: turn.sequence, stream_id: lane };
}

/** The turn once that was sent. */
export function sent(turn: Turn, epoch: number): Turn {
  return { ...turn, status: turn.answer ? "streaming" : "waiting", resuming: turn.status === "lost", epoch };
}

/** The turn after its connection was closed. `refused`: no other one will be tried. */
export function afterLoss(turn: Turn, code: number, refused: boolean): Turn {
  if (!isActive(turn)) return turn;
  if (refused) return failed(turn, fromRefusal(code));
  if (!isRunning(turn)) return turn;
  if (turn.status === "stopping") return stopped(turn);
  if (turn.responseId !== null) return { ...turn, status: "lost", resuming: false };
  if (code === MESSAGE_TOO_BIG || turn.answer || turn.losses + 1 >= MOST_LOSSES) return failed(turn, fromLoss(code));
  return { ...turn, status: "queued", losses: turn.losses + 1 };
}

/** The turn after the server has refused what was last sent for it. */
export function afterRefusal(turn: Turn, error: WireError): Turn {
  if (!isRunning(turn)) return turn;
  if (turn.resuming && RING_GONE.has(error.code)) {
    // Without text nothing is lost by asking again.
    return turn.answer || turn.losses >= MOST_LOSSES ? failed(turn, notResumed) : again(turn);
  }
  if (error.code === "previous_response_not_found" && !turn.whole) return again(turn);
  return failed(turn, fromServer(error));
}

const RING_GONE = new Set(["response_not_found", "resume_gap", "unknown_event"]);

/** The same question from the beginning, with all that the server needs to know. */
function again(turn: Turn): Turn {
  const { id, question, parent, continues, tab, losses } = turn;
  return { ...newTurn(id, question, parent), continues, tab, losses, whole: true };
}

/** A turn that the page finds active when it is opened, or that another tab has left behind. */
export function takenUp(turn: Turn, tab: string): Turn {
  if (turn.responseId === null) return failed(turn, pageReloaded);
  if (turn.status === "stopping") return stopped(turn);
  // What was begun in another visit, perhaps days ago, is not asked anew unbidden.
  return { ...turn, status: "lost", tab, epoch: 0, losses: MOST_LOSSES };
}
