/**
 * Conversations as files: JSON, which keeps everything, and Markdown, which people read.
 *
 * Pure: text in and out. Markdown holds the branch that is shown. Both are read again; a line of a message that looks
 * like one of ours is written with a backslash before it.
 */
import { grown, shown } from "./branches";
import { newConversation, newTurn, titleOf, type Conversation, type System } from "./conversation";
import { record } from "./fields";
import { readConversation, settled } from "./revive";

export interface ExportedFile {
  name: string;
  mime: string;
  text: string;
}

const FORMAT = "banyan.conversations";

export function toJson(conversations: readonly Conversation[]): ExportedFile {
  const kept = conversations.filter(({ turns }) => turns.length > 0).map((one) => ({ ...settled(one), draft: "" }));
  const text = `${JSON.stringify({ format: FORMAT, version: 1, conversations: kept }, null, 2)}\n`;
  const name = kept.length === 1 ? fileName(kept[0]!) : "banyan-conversations";
  return { name: `${name}.json`, mime: "application/json", text };
}

export function toMarkdown(conversation: Conversation): ExportedFile {
  const parts = [`# ${titleOf(conversation)}`, ...systemPart(conversation.system)];
  for (const { question, answer } of shown(conversation)) {
    parts.push(`${HEADS.question}\n\n${guarded(question)}`);
    if (answer) parts.push(`${HEADS.answer}\n\n${guarded(answer)}`);
  }
  return { name: `${fileName(conversation)}.md`, mime: "text/markdown", text: `${parts.join("\n\n")}\n` };
}

/** The conversations of a file; empty where there are none in it. */
export function fromFile(text: string, newId: () => string, now: number): Conversation[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return fromMarkdown(text, newId, now);
  }
  const { conversations } = record(json);
  const list: unknown[] = Array.isArray(conversations) ? conversations : [json];
  return list
    .map(readConversation)
    .filter((one) => one !== null)
    .filter(({ turns }) => turns.length > 0)
    .map(settled);
}

const HEADS = { system: "## System prompt", question: "## Question", answer: "## Answer" };
type Part = keyof typeof HEADS;
const GUARDED = /^(\\*)(## (?:System prompt|Question|Answer))$/gm;

function guarded(text: string): string {
  return text.replace(GUARDED, "$1\\$2");
}

function unguarded(text: string): string {
  return text.replace(/^\\(\\*## (?:System prompt|Question|Answer))$/gm, "$1");
}

function systemPart(system: System | null): string[] {
  if (system?.kind === "own" && system.text.trim()) return [`${HEADS.system}\n\n${guarded(system.text)}`];
  if (system?.kind !== "prompt") return [];
  const version = system.version === null ? "" : ` @ ${system.version}`;
  return [`${HEADS.system}\n\n*Registered:* ${system.name} (\`${system.id}\`${version})`];
}

function readSystemPart(text: string): System {
  const named = /^\*Registered:\* (.*) \(`([^`]+)`(?: @ (\S+))?\)$/.exec(text);
  return named
    ? { kind: "prompt", name: named[1]!, id: named[2]!, version: named[3] ?? null }
    : { kind: "own", text: unguarded(text) };
}

function fromMarkdown(text: string, newId: () => string, now: number): Conversation[] {
  const { title, parts } = partsOf(text.replaceAll("\r\n", "\n"));
  if (!parts.some(({ part }) => part === "question")) return [];
  let conversation: Conversation = { ...newConversation(newId(), now, null), title };
  for (const { part, body } of parts) {
    if (part === "system") conversation = { ...conversation, system: readSystemPart(body) };
    else if (part === "question") {
      const turn = newTurn(newId(), unguarded(body), conversation.head);
      conversation = grown(conversation, { ...turn, status: "stopped" });
    } else if (conversation.head !== null) {
      const answered = { answer: unguarded(body), status: "done" as const };
      const turns = conversation.turns.map((turn) => (turn.id === conversation.head ? { ...turn, ...answered } : turn));
      conversation = { ...conversation, turns };
    }
  }
  return [conversation];
}

function partsOf(text: string): { title: string | null; parts: { part: Part; body: string }[] } {
  const parts: { part: Part; body: string }[] = [];
  let title: string | null = null;
  let lines: string[] = [];
  let current: Part | null = null;
  const finish = () => {
    if (current) parts.push({ part: current, body: lines.join("\n").trim() });
    lines = [];
  };
  for (const line of text.split("\n")) {
    const part = (Object.keys(HEADS) as Part[]).find((name) => HEADS[name] === line);
    if (part) {
      finish();
      current = part;
    } else if (current === null && title === null && line.startsWith("# ")) title = line.slice(2).trim() || null;
    else lines.push(line);
  }
  finish();
  return { title, parts };
}

/** Letters, digits and hyphens of the title. */
function fileName(conversation: Conversation): string {
  const words = titleOf(conversation)
    .normalize("NFD")
    .replace(/\p{Diacritic}/gu, "")
    .replace(/[^\p{Letter}\p{Number}]+/gu, "-")
    .replace(/^-+|-+$/g, "");
  return words.slice(0, 60).toLowerCase() || "conversation";
}
