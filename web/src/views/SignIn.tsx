/** Asks for a key where the server wants one. The key stays in this tab. */
import { keyRefused } from "../model/problems";
import { Mark } from "./Mark";

interface SignInProps {
  refused: boolean;
  onKey: (key: string) => void;
}

export function SignIn({ refused, onKey }: SignInProps) {
  return (
    <div class="scroll">
      <form
        class="column sign-in"
        onSubmit={(event) => {
          event.preventDefault();
          onKey(String(new FormData(event.currentTarget).get("key") ?? ""));
        }}
      >
        <Mark size={56} />
        <h1>Sign in</h1>
        <p>This server answers those who have a key. Whoever runs it hands them out.</p>
        {refused && (
          <div class="problem" role="group" aria-label="Problem">
            <p>
              <strong>{keyRefused.title}.</strong> {keyRefused.advice}
            </p>
          </div>
        )}
        <label class="field">
          <span>Key</span>
          <input
            name="key"
            type="password"
            autocomplete="off"
            spellcheck={false}
            required
            placeholder="sk-…"
            ref={(field) => field?.focus()}
          />
        </label>
        <p class="field-help">It is kept in this tab until you close it, and sent to this server only.</p>
        <button type="submit" class="send">
          Sign in
        </button>
      </form>
    </div>
  );
}
