/** Which model is served and to whom, how full the context is, and whether the page is connected. */
import { linkLabel } from "../model/announce";
import { shown } from "../model/branches";
import { contextTokens, formatCount, formatPercent } from "../model/cache";
import { countSet } from "../model/sampling";
import { openConversation, type State } from "../model/state";
import { Icon } from "./Icon";
import { Mark } from "./Mark";

interface HeaderProps {
  state: State;
  onMenu: () => void;
  onSampling: () => void;
}

export function Header({ state, onMenu, onSampling }: HeaderProps) {
  const conversation = openConversation(state);
  const set = countSet(conversation.sampling);
  const signedIn = state.signIn === "none";
  return (
    <header class="header">
      <button type="button" class="quiet only-narrow" aria-label="Conversations" onClick={onMenu}>
        <Icon name="menu" />
      </button>
      <span class="brand only-narrow">
        <Mark size={24} />
      </span>
      <span class="served">
        {state.model && (
          <>
            <span class="served-label">Model</span> <strong data-testid="model">{state.model}</strong>
          </>
        )}
        {state.tenant && state.key && signedIn && (
          <span class="served-tenant">
            <span class="served-label">as</span> <strong data-testid="tenant">{state.tenant}</strong>
          </span>
        )}
      </span>
      {state.page === "chat" && signedIn && (
        <>
          <ContextMeter used={contextTokens(shown(conversation))} room={state.maxContextTokens} />
          <button type="button" class="small sampling-button" aria-label="Settings of this chat" onClick={onSampling}>
            <Icon name="sliders" />
            <span class="wide-label">Settings</span>
            {set > 0 && (
              <span class="badge" aria-label={`${set} changed`}>
                {set}
              </span>
            )}
          </button>
        </>
      )}
      <span class="link" data-phase={signedIn ? state.link.phase : "resting"} data-testid="link">
        <span class="dot" aria-hidden="true" />
        <span class="link-label">{signedIn ? linkLabel(state.link) : "Signed out"}</span>
      </span>
    </header>
  );
}

const RADIUS = 8;
const AROUND = 2 * Math.PI * RADIUS;

function ContextMeter({ used, room }: { used: number | null; room: number | null }) {
  if (used === null || !room) return null;
  const part = Math.min(1, used / room);
  const words = `${formatCount(used)} of ${formatCount(room)} tokens of context used`;
  return (
    <span class="context" data-full={part > 0.85} data-testid="context" role="img" aria-label={words} title={words}>
      <svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true">
        <circle class="context-room" cx="10" cy="10" r={RADIUS} />
        <circle
          class="context-used"
          cx="10"
          cy="10"
          r={RADIUS}
          stroke-dasharray={`${Math.max(1, part * AROUND)} ${AROUND}`}
          transform="rotate(-90 10 10)"
        />
      </svg>
      <span class="wide-label">{formatPercent(part)} of context</span>
    </span>
  );
}
