/** The conversation so far, along the branch that is shown. Follows the end until the person scrolls up. */
import { branchesAt, shown } from "../model/branches";
import type { Conversation } from "../model/conversation";
import { pendingTurn, systemText, type State } from "../model/state";
import { Icon } from "./Icon";
import type { Intents } from "./intents";
import { TurnView } from "./Turn";
import { useFollow } from "./useFollow";

export function Thread({
  state,
  conversation,
  intents,
}: {
  state: State;
  conversation: Conversation;
  intents: Intents;
}) {
  const turns = shown(conversation);
  const last = turns.at(-1);
  const { box, following, onScroll, toEnd } = useFollow(last?.id ?? "");
  const { system } = conversation;
  const text = systemText(state, system);
  const busy = pendingTurn(conversation, state.tab) !== null;

  return (
    <div class="scroll-frame">
      <div
        class="scroll"
        ref={box}
        onScroll={onScroll}
        data-testid="thread"
        tabIndex={0}
        role="region"
        aria-label="Conversation"
      >
        <div class="column thread">
          {text && (
            <details class="prompt-text">
              <summary>
                System prompt: <strong>{system?.kind === "prompt" ? system.name : "your own"}</strong>
                {system?.kind === "prompt" && system.version !== null && ` (version ${system.version})`}
              </summary>
              <div class="prompt-body" tabIndex={0}>
                {text}
              </div>
            </details>
          )}
          {turns.map((turn) => {
            const branches = branchesAt(conversation, turn);
            return (
              <TurnView
                key={turn.id}
                turn={turn}
                place={branches.indexOf(turn)}
                branches={branches.length}
                last={turn === last}
                busy={busy}
                intents={intents}
              />
            );
          })}
        </div>
      </div>
      {!following && (
        <button type="button" class="to-end" onClick={toEnd}>
          <Icon name="down" />
          To the end
        </button>
      )}
    </div>
  );
}
