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
    code({ text, lang }: Tokens.Code) {
      const language = /^[\w+#.-]{1,20}/.exec(lang ?? "")?.[0] ?? "";
      return `<pre data-language="${escapeHtml(language)}"><code>${highlighted(text, language) ?? escapeHtml(text)}</code></pre>`;
    },
  },
});

export interface Block {
  /** The Markdown it came from: equal source means equal HTML. */
  source: string;
  html: string;
}

/** Top-level blocks in order. `known`, the result for an earlier text of the same answer, saves rendering anew. */
export function blocksOf(markdown: string, known: readonly Block[] = []): Block[] {
  const tokens = marked.lexer(markdown).filter((token) => token.type !== "space" && token.type !== "def");
  return tokens.map((token, index) => {
    const before = known[index];
    // A reference like [text][1] can change without its source changing, when its definition arrives.
    if (before && before.source === token.raw && !token.raw.includes("[")) return before;
    return { source: token.raw, html: marked.parser([token as Token]) };
  });
}
