/** An answer's Markdown. While it streams only its last block is drawn anew, so selections above it stay. */
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { sanitize } from "../browser/sanitize";
import { blocksOf, type Block } from "../model/blocks";
import { isRunning, type Turn } from "../model/conversation";

export function Answer({ turn }: { turn: Turn }) {
  const known = useRef<readonly Block[]>([]);
  known.current = useMemo(() => blocksOf(turn.answer, known.current), [turn.answer]);
  return (
    <div class="answer" data-streaming={isRunning(turn)} data-testid="answer">
      {known.current.map(({ html }, index) => (
        <BlockView key={index} html={html} />
      ))}
    </div>
  );
}

function BlockView({ html }: { html: string }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => box.current?.querySelectorAll("pre").forEach(dress), [html]);
  return useMemo(() => <div class="block" ref={box} dangerouslySetInnerHTML={{ __html: sanitize(html) }} />, [html]);
}

/**
 * Frames code with its language and a button to copy it. Made here and not in the HTML, which is the model's: there no
 * button is let in.
 */
function dress(code: HTMLPreElement): void {
  const frame = document.createElement("div");
  frame.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const language = document.createElement("span");
  language.textContent = code.dataset.language || "text";
  head.append(language);
  if (navigator.clipboard) head.append(copyButton(code));
  code.replaceWith(frame);
  frame.append(head, code);
  // What scrolls sideways is to be reached by keys as well.
  code.tabIndex = 0;
}

function copyButton(code: HTMLPreElement): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = "Copy";
  button.ariaLabel = "Copy the code";
  button.onclick = () =>
    void navigator.clipboard.writeText(code.textContent).then(() => {
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  return button;
}
