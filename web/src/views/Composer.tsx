/** Where one writes. Enter sends, Shift+Enter breaks the line; the draft belongs to its conversation. */
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./Icon";

interface ComposerProps {
  draft: string;
  placeholder: string;
  /** What keeps a message from being sent now: an answer here, or one in another tab. */
  busy: "answering" | "elsewhere" | null;
  onDraft: (text: string) => void;
  onSend: (text: string) => void;
  onStop: () => void;
}

export function Composer({ draft, placeholder, busy, onDraft, onSend, onStop }: ComposerProps) {
  const field = useRef<HTMLTextAreaElement>(null);
  // From the field, not from the drawn draft: whoever types fast presses Enter before the next frame.
  const send = () => busy === null && onSend(field.current?.value ?? "");

  // The field takes the focus that nobody has: at first, and when the button that had it is gone (a suggestion, Stop).
  // Not on a touch screen, where the keyboard would cover the page.
  useEffect(() => {
    const free = document.activeElement === document.body;
    if (free && matchMedia("(hover: hover)").matches) field.current?.focus();
  }, [busy]);

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div class="composer-box">
        <textarea
          ref={field}
          id="message"
          rows={1}
          value={draft}
          placeholder={placeholder}
          aria-label="Your message"
          aria-describedby="composer-hint"
          enterkeyhint="send"
          onInput={(event) => onDraft(event.currentTarget.value)}
          onKeyDown={(event) => {
            // While an input method composes, Enter chooses a word.
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            send();
          }}
        />
        {busy === "answering" ? (
          <button type="button" class="send stop" onClick={onStop}>
            <Icon name="stop" />
            Stop
          </button>
        ) : (
          <button type="submit" class="send" disabled={busy !== null || !draft.trim()}>
            <Icon name="send" />
            Send
          </button>
        )}
      </div>
      <p class="hint" id="composer-hint">
        {HINTS[busy ?? "free"]}
      </p>
    </form>
  );
}

const HINTS = {
  answering: "Esc stops the answer",
  elsewhere: "This is being answered in another tab",
  free: "Enter sends, Shift+Enter starts a new line, ? shows all keys",
};
