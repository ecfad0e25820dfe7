/** Where one writes. Enter sends, Shift+Enter breaks the line; the draft belongs to its conversation. */
import { useEffect, useRef } from "preact/hooks";
import type { Conversation } from "../model/conversation";
import { Icon } from "./Icon";
import type { Intents } from "./intents";

interface ComposerProps {
  conversation: Conversation;
  answering: boolean;
  intents: Intents;
}

export function Composer({ conversation, answering, intents }: ComposerProps) {
  const field = useRef<HTMLTextAreaElement>(null);
  const { draft } = conversation;
  // From the field, not from the drawn draft: whoever types fast presses Enter before the next frame.
  const send = () => intents.ask(field.current?.value ?? "");

  // The field takes the focus that nobody has: at first, and when the button that had it is gone (a suggestion, Stop).
  // Not on a touch screen, where the keyboard would cover the page.
  useEffect(() => {
    const free = document.activeElement === document.body;
    if (free && matchMedia("(hover: hover)").matches) field.current?.focus();
  }, [answering]);

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        if (!answering) send();
      }}
    >
      <div class="composer-box">
        <textarea
          ref={field}
          rows={1}
          value={draft}
          placeholder="Ask something"
          aria-label="Your message"
          aria-describedby="composer-hint"
          enterkeyhint="send"
          onInput={(event) => intents.draft(event.currentTarget.value)}
          onKeyDown={(event) => {
            // While an input method composes, Enter chooses a word.
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            if (!answering) send();
          }}
        />
        {answering ? (
          <button type="button" class="send stop" onClick={intents.stop}>
            <Icon name="stop" />
            Stop
          </button>
        ) : (
          <button type="submit" class="send" disabled={!draft.trim()}>
            <Icon name="send" />
            Send
          </button>
        )}
      </div>
      <p class="hint" id="composer-hint">
        {answering ? "Esc stops the answer" : "Enter sends, Shift+Enter starts a new line"}
      </p>
    </form>
  );
}
