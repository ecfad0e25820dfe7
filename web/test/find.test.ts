import { expect, it } from "vitest";
import { newConversation, newTurn } from "../src/model/conversation";
import { found } from "../src/model/find";

const chat = (id: string, question: string, answer: string, title: string | null = null) => ({
  ...newConversation(id, 1, null),
  title,
  turns: [{ ...newTurn("t", question), answer }],
});
const list = [chat("a", "How much is a crème?", "Three euros."), chat("b", "Opening hours", "At SEVEN.", "Café")];
const hits = (search: string) => found([...list, newConversation("empty", 2, null)], search).map(({ id }) => id);

it("finds every word in title, question or answer, whatever its case and accents", () => {
  expect(hits("")).toEqual(["a", "b"]);
  expect(hits("creme EUROS")).toEqual(["a"]);
  expect(hits("cafe seven")).toEqual(["b"]);
  expect(hits("seven euros")).toEqual([]);
});
