/** Which model is served, and whether the page is connected to it. */
import { linkLabel } from "../model/announce";
import type { State } from "../model/state";
import { Icon } from "./Icon";
import { Mark } from "./Mark";

export function Header({ state, onMenu }: { state: State; onMenu: () => void }) {
  return (
    <header class="header">
      <button type="button" class="quiet only-narrow" aria-label="Conversations" onClick={onMenu}>
        <Icon name="menu" />
      </button>
      <span class="brand only-narrow">
        <Mark size={24} />
        Banyan
      </span>
      <span class="served">
        {state.model && (
          <>
            <span class="served-label">Model</span> <strong data-testid="model">{state.model}</strong>
          </>
        )}
      </span>
      <span class="link" data-phase={state.link.phase} data-testid="link">
        <span class="dot" aria-hidden="true" />
        <span class="link-label">{linkLabel(state.link)}</span>
      </span>
    </header>
  );
}
