/** The conversation so far. Follows the end of the answer until the person scrolls up. */
import type { Conversation } from "../model/conversation";
import { lastTurn } from "../model/conversation";
import { promptOf, type State } from "../model/state";
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
  const last = lastTurn(conversation);
  const { box, following, onScroll, toEnd } = useFollow(last?.id ?? "");
  const { system } = conversation;
  const text = system?.kind === "own" ? system.text : promptOf(state, system)?.text;

  return (
    <div class="scroll-frame">
      <div class="scroll" ref={box} onScroll={onScroll} data-testid="thread">
        <div class="column thread">
          {text && (
            <details class="prompt-text">
              <summary>
                System prompt: <strong>{system?.kind === "prompt" ? system.name : "your own"}</strong>
              </summary>
              <div class="prompt-body">{text}</div>
            </details>
          )}
          {conversation.turns.map((turn) => (
            <TurnView key={turn.id} turn={turn} onRetry={turn === last ? intents.retry : null} />
          ))}
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
