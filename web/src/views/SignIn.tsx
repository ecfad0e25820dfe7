/** Asks for a key where the server wants one. The key stays in this tab. */
import { ofSignIn } from "../model/problems";
import type { State } from "../model/state";
import { Mark } from "./Mark";

interface SignInProps {
  why: State["signIn"];
  onKey: (key: string) => void;
}

export function SignIn({ why, onKey }: SignInProps) {
  const problem = ofSignIn(why);
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
        {problem && (
          <div class="problem" role="group" aria-label="Problem">
            <p>
              <strong>{problem.title}.</strong> {problem.advice}
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
