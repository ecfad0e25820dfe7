import { beforeEach, describe, expect, it, vi } from "vitest";
import { createSocket, protocolsFor, socketUrl } from "../src/browser/socket";
import { Refused } from "../src/browser/server";
import type { ServerEvent } from "../src/model/protocol";

class FakeWebSocket {
  static OPEN = 1;
  readyState = 0;
  sent: string[] = [];
  closings = 0;
  onopen = (): void => undefined;
  onclose = (_: { code: number }): void => undefined;
  onmessage = (_: { data: unknown }): void => undefined;
  send(text: string) {
    this.sent.push(text);
  }
  close() {
    this.closings++;
  }
}

let made: FakeWebSocket[];
let log: (string | number | ServerEvent)[];
let refusal: Error | null;

function socket() {
  const reports = {
    opened: () => log.push("opened"),
    closed: (code: number) => log.push(code),
    event: (event: ServerEvent) => log.push(event),
  };
  return createSocket(reports, async () => {
    if (refusal) throw refusal;
    made.push(new FakeWebSocket());
    return made.at(-1) as unknown as WebSocket;
  });
}

/** Sockets are opened once a ticket is there: not in the same breath. */
const settle = () => new Promise<void>((resolve) => setTimeout(resolve));

beforeEach(() => {
  made = [];
  log = [];
  refusal = null;
  vi.stubGlobal("WebSocket", FakeWebSocket);
});

describe("socket", () => {
  it("goes to the host that served the page", () => {
    expect(socketUrl({ protocol: "http:", host: "a:8000" })).toBe("ws://a:8000/v1/responses");
    expect(socketUrl({ protocol: "https:", host: "a" })).toBe("wss://a/v1/responses");
  });

  it("reports what it hears and drops what is no event", async () => {
    socket().connect();
    await settle();
    made[0]!.onopen();
    made[0]!.onmessage({ data: '{"type":"x.session","model":"m"}' });
    made[0]!.onmessage({ data: "noise" });
    made[0]!.onmessage({ data: new ArrayBuffer(3) });
    made[0]!.onclose({ code: 1012 });
    expect(log).toEqual(["opened", { type: "session", model: "m", tenant: null, maxContextTokens: null }, 1012]);
  });

  it("sends JSON while open and nothing before", async () => {
    const under = socket();
    under.connect();
    await settle();
    under.send({ type: "response.cancel", stream_id: "s" });
    made[0]!.readyState = 1;
    under.send({ type: "response.cancel", stream_id: "s" });
    expect(made[0]!.sent).toEqual(['{"type":"response.cancel","stream_id":"s"}']);
  });

  it("no longer listens to the socket before", async () => {
    const under = socket();
    under.connect();
    await settle();
    under.connect();
    await settle();
    made[0]!.onclose({ code: 1006 });
    made[1]!.onopen();
    expect(log).toEqual(["opened"]);
    expect(made[0]!.closings).toBe(1);
  });

  it("closes what was opened for a connection that is no longer wanted", async () => {
    const under = socket();
    under.connect();
    under.connect();
    await settle();
    expect(made.map(({ closings }) => closings)).toEqual([1, 0]);
  });

  it("shows a key as a fresh ticket, and none where there is none", async () => {
    let count = 0;
    const ticketFor = async (key: string) => `${key}-${++count}`;
    expect(await protocolsFor("", ticketFor)).toEqual(["banyan.v1"]);
    expect(await protocolsFor("k", ticketFor)).toEqual(["banyan.v1", "ticket.k-1"]);
    expect(await protocolsFor("k", ticketFor)).toEqual(["banyan.v1", "ticket.k-2"]);
  });

  it("reports a key that is refused a ticket, apart from a server that is not there", async () => {
    refusal = new Refused(401);
    socket().connect();
    await settle();
    refusal = new Refused(403);
    socket().connect();
    await settle();
    refusal = new TypeError("fetch failed");
    socket().connect();
    await settle();
    expect(log).toEqual([4401, 4403, 1006]);
  });
});
