/**
 * Our WebSocket: opens, sends, reports. Knows the address and the subprotocol; decides nothing: `model/link.ts` does.
 */
import { parseEvent, SUBPROTOCOL, type ClientEvent, type ServerEvent } from "../model/protocol";

export interface SocketReports {
  opened(): void;
  closed(code: number): void;
  event(event: ServerEvent): void;
}

export interface Socket {
  connect(): void;
  send(event: ClientEvent): void;
}

export function socketUrl(location: Pick<Location, "protocol" | "host">): string {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/responses`;
}

/** One connection at a time; reports of an earlier one are dropped once `connect` was called again. */
export function createSocket(
  url: string,
  reports: SocketReports,
  open = (): WebSocket => new WebSocket(url, [SUBPROTOCOL]),
): Socket {
  let current: WebSocket | null = null;
  return {
    connect() {
      current?.close();
      const socket = open();
      current = socket;
      const isCurrent = () => current === socket;
      socket.onopen = () => isCurrent() && reports.opened();
      socket.onclose = (event) => isCurrent() && reports.closed(event.code);
      socket.onmessage = (message) => {
        const event = typeof message.data === "string" ? parseEvent(message.data) : null;
        if (event && isCurrent()) reports.event(event);
      };
    },
    send(event) {
      // Between the loss of a connection and its close event a message is dropped here; the close event then says so.
      if (current?.readyState === WebSocket.OPEN) current.send(JSON.stringify(event));
    },
  };
}
