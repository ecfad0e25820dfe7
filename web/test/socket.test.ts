import { beforeEach, describe, expect, it, vi } from "vitest";
import { createSocket, socketUrl } from "../src/browser/socket";
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

function socket() {
  const reports = {
    opened: () => log.push("opened"),
    closed: (code: number) => log.push(code),
    event: (event: ServerEvent) => log.push(event),
  };
  return createSocket("ws://here/v1/responses", reports, () => {
    made.push(new FakeWebSocket());
    return made.at(-1) as unknown as WebSocket;
  });
}

beforeEach(() => {
  made = [];
  log = [];
  vi.stubGlobal("WebSocket", FakeWebSocket);
});

describe("socket", () => {
  it("goes to the host that served the page", () => {
    expect(socketUrl({ protocol: "http:", host: "a:8000" })).toBe("ws://a:8000/v1/responses");
    expect(socketUrl({ protocol: "https:", host: "a" })).toBe("wss://a/v1/responses");
  });

  it("reports what it hears and drops what is no event", () => {
    socket().connect();
    made[0]!.onopen();
    made[0]!.onmessage({ data: '{"type":"x.session","model":"m"}' });
    made[0]!.onmessage({ data: "noise" });
    made[0]!.onmessage({ data: new ArrayBuffer(3) });
    made[0]!.onclose({ code: 1012 });
    expect(log).toEqual(["opened", { type: "session", model: "m" }, 1012]);
  });

  it("sends JSON while open and nothing before", () => {
    const under = socket();
    under.connect();
    under.send({ type: "response.cancel", stream_id: "s" });
    made[0]!.readyState = 1;
    under.send({ type: "response.cancel", stream_id: "s" });
    expect(made[0]!.sent).toEqual(['{"type":"response.cancel","stream_id":"s"}']);
  });

  it("no longer listens to the socket before", () => {
    const under = socket();
    under.connect();
    under.connect();
    made[0]!.onclose({ code: 1006 });
    made[1]!.onopen();
    expect(log).toEqual(["opened"]);
    expect(made[0]!.closings).toBe(1);
  });
});
