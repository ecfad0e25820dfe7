/**
 * A WebSocket to the server: opens, sends, reports. Knows the address, the subprotocol and that a key is shown as a
 * ticket; decides nothing: `model/link.ts` does.
 */
import { ACCESS_REFUSED, KEY_REFUSED, KEY_TOO_NARROW } from "../model/link";
import { parseEvent, SUBPROTOCOL, type ClientEvent, type ServerEvent } from "../model/protocol";
import { fetchTicket, Refused } from "./server";

export interface SocketReports {
  opened(): void;
  closed(code: number): void;
  event(event: ServerEvent): void;
}

export interface Socket {
  connect(): void;
  send(event: ClientEvent): void;
}

/** What a browser says when there is no connection. */
const NO_CONNECTION = 1006;

export function socketUrl(location: Pick<Location, "protocol" | "host">): string {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/responses`;
}

/** The subprotocols to offer: with a key, a fresh ticket among them. */
export async function protocolsFor(key: string, ticketFor = fetchTicket): Promise<string[]> {
  return key ? [SUBPROTOCOL, `ticket.${await ticketFor(key)}`] : [SUBPROTOCOL];
}

/** One connection at a time; reports of an earlier one are dropped once `connect` was called again. */
export function createSocket(reports: SocketReports, open: () => Promise<WebSocket>): Socket {
  let current: WebSocket | null = null;
  let attempt = 0;
  return {
    connect() {
      const own = ++attempt;
      current?.close();
      current = null;
      const isCurrent = () => own === attempt;
      open().then(
        (socket) => {
          if (!isCurrent()) return socket.close();
          current = socket;
          socket.onopen = () => isCurrent() && reports.opened();
          socket.onclose = (event) => isCurrent() && reports.closed(event.code);
          socket.onmessage = (message) => {
            const event = typeof message.data === "string" ? parseEvent(message.data) : null;
            if (event && isCurrent()) reports.event(event);
          };
        },
        (error: unknown) => isCurrent() && reports.closed(codeOf(error)),
      );
    },
    send(event) {
      // Between the loss of a connection and its close event a message is dropped here; the close event then says so.
      if (current?.readyState === WebSocket.OPEN) current.send(JSON.stringify(event));
    },
  };
}

/** The code that the server would have closed with, had there been a socket. */
function codeOf(error: unknown): number {
  if (!(error instanceof Refused)) return NO_CONNECTION;
  if (error.status === 401) return KEY_REFUSED;
  return error.code === "insufficient_scope" ? KEY_TOO_NARROW : ACCESS_REFUSED;
}
