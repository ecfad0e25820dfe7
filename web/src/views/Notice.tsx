/** A problem of the page as a whole, with its next step. The live region announces it. */
import type { Problem } from "../model/problems";

export function Notice({ problem, action, onAction }: { problem: Problem; action: string; onAction: () => void }) {
  return (
    <div class="notice" role="group" aria-label="Problem">
      <p>
        <strong>{problem.title}.</strong> {problem.advice}
      </p>
      <button type="button" class="small" onClick={onAction}>
        {action}
      </button>
    </div>
  );
}
