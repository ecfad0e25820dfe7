/** An answer's Markdown. While it streams only its last block is drawn anew, so selections above it stay. */
import { useMemo, useRef } from "preact/hooks";
import { sanitize } from "../browser/sanitize";
import { blocksOf, type Block } from "../model/blocks";
import type { Turn } from "../model/conversation";

export function Answer({ turn }: { turn: Turn }) {
  const known = useRef<readonly Block[]>([]);
  known.current = useMemo(() => blocksOf(turn.answer, known.current), [turn.answer]);
  const streaming = turn.status === "streaming" || turn.status === "stopping";
  return (
    <div class="answer" data-streaming={streaming} data-testid="answer">
      {known.current.map(({ html }, index) => (
        <BlockView key={index} html={html} />
      ))}
    </div>
  );
}

function BlockView({ html }: { html: string }) {
  return useMemo(() => <div class="block" dangerouslySetInnerHTML={{ __html: sanitize(html) }} />, [html]);
}
