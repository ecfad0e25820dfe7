/**
 * Markdown to HTML, block by block, so that while an answer streams only its last block changes.
 *
 * Knows Markdown (through marked). Has no DOM and does not sanitize: `browser/sanitize.ts` does, after this has already
 * turned raw HTML into text and images into their descriptions.
 */
import { Marked, type Token, type Tokens } from "marked";
import { escapeHtml } from "./escape";
import { highlighted } from "./highlight";

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    // What the model writes is text: a tag it writes is shown, not obeyed.
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escapeHtml(text),
    // Nothing is loaded from elsewhere: an address in an image is a way to send out what was said here.
    image: ({ text }: Tokens.Image) => `<span class="image">${escapeHtml(text || "image")}</span>`,
    code({ raw, text, lang }: Tokens.Code) {
      const language = /^[\w+#.-]{1,20}/.exec(lang ?? "")?.[0] ?? "";
      const coloured = text.length <= (isClosed(raw) ? MOST_CLOSED : MOST_OPEN) ? highlighted(text, language) : null;
      return `<pre data-language="${escapeHtml(language)}"><code>${coloured ?? escapeHtml(text)}</code></pre>`;
    },
  },
});

/** Characters of code that are coloured: once, when it is whole, or with every frame, while it is being written. */
const MOST_CLOSED = 50_000;
const MOST_OPEN = 4_000;

function isClosed(raw: string): boolean {
  return /^[^\n]*\n[^]*(?:```|~~~)\s*$/.test(raw);
}

export interface Block {
  /** The Markdown it came from: equal source means equal HTML. */
  source: string;
  html: string;
  /** Where it begins in the whole text. */
  start: number;
}

/**
 * Top-level blocks in order. `known`, the result for an earlier text of the same answer, saves reading and rendering
 * anew: of a text that has grown only the end is looked at. (50,000 characters: 3 ms instead of 45 on a busy core.)
 */
export function blocksOf(markdown: string, known: readonly Block[] = []): Block[] {
  const kept = keptOf(markdown, known);
  const last = kept.at(-1);
  const from = last ? last.start + last.source.length : 0;
  let start = from;
  const blocks: Block[] = [...kept];
  for (const token of marked.lexer(markdown.slice(from))) {
    if (token.type !== "space" && token.type !== "def") blocks.push(blockOf(token, start, known[blocks.length]));
    start += token.raw.length;
  }
  return blocks;
}

function blockOf(token: Token, start: number, before: Block | undefined): Block {
  // A reference like [text][1] can change without its source changing, when its definition arrives.
  const same = before && before.source === token.raw && before.start === start && !token.raw.includes("[");
  return same ? before : { source: token.raw, html: marked.parser([token]), start };
}

/** What follows may still become part of the last block, or (a list and the text below it) of the one before. */
const UNSETTLED = 2;
// Both make a block mean something that does not stand in it: a definition elsewhere, other line ends than were read.
const FAR_REACHING = /\[[^\]\n]+\]:|\r/;

/** The blocks of the earlier text that stand in this one as they are and that nothing below can change. */
function keptOf(markdown: string, known: readonly Block[]): readonly Block[] {
  if (known.length <= UNSETTLED || FAR_REACHING.test(markdown)) return [];
  const settled = known.slice(0, -UNSETTLED);
  return settled.every(({ source, start }) => markdown.startsWith(source, start)) ? settled : [];
}
