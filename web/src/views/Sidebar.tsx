/** The conversations: open, begin, delete (asked twice, for it cannot be undone). */
import { useEffect, useRef, useState } from "preact/hooks";
import { titleOf, type Conversation } from "../model/conversation";
import { isAnswering, type State } from "../model/state";
import { Icon } from "./Icon";
import type { Intents } from "./intents";
import { Mark } from "./Mark";

interface SidebarProps {
  state: State;
  intents: Intents;
  open: boolean;
  onClose: () => void;
}

export function Sidebar({ state, intents, open, onClose }: SidebarProps) {
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (open) close.current?.focus();
  }, [open]);
  const listed = state.conversations.filter((conversation) => conversation.turns.length > 0);

  return (
    <>
      {open && <div class="backdrop only-narrow" onClick={onClose} />}
      <aside class="sidebar" data-open={open} aria-label="Conversations">
        <div class="sidebar-top">
          <span class="brand">
            <Mark size={28} />
            Banyan
          </span>
          <button ref={close} type="button" class="quiet only-narrow" aria-label="Close the list" onClick={onClose}>
            <Icon name="close" />
          </button>
        </div>
        <button
          type="button"
          class="new"
          onClick={() => {
            intents.startNew();
            onClose();
          }}
        >
          <Icon name="plus" />
          New conversation
        </button>
        {listed.length > 0 ? (
          <ul class="conversations">
            {listed.map((conversation) => (
              <Entry
                key={conversation.id}
                conversation={conversation}
                current={conversation.id === state.openId}
                onOpen={() => {
                  intents.open(conversation.id);
                  onClose();
                }}
                onRemove={() => intents.remove(conversation.id)}
              />
            ))}
          </ul>
        ) : (
          <p class="sidebar-empty">Conversations are kept in this browser only.</p>
        )}
      </aside>
    </>
  );
}

interface EntryProps {
  conversation: Conversation;
  current: boolean;
  onOpen: () => void;
  onRemove: () => void;
}

function Entry({ conversation, current, onOpen, onRemove }: EntryProps) {
  const [asking, setAsking] = useState(false);
  const title = titleOf(conversation);
  const { system } = conversation;
  if (asking) {
    return (
      <li class="entry asking">
        <span class="entry-title">Delete this conversation?</span>
        <button type="button" class="small danger" onClick={onRemove}>
          Delete
        </button>
        <button type="button" class="small" ref={(button) => button?.focus()} onClick={() => setAsking(false)}>
          Keep
        </button>
      </li>
    );
  }
  return (
    <li class="entry" data-current={current}>
      <button type="button" class="entry-open" aria-current={current ? "true" : undefined} onClick={onOpen}>
        <span class="entry-title">{title}</span>
        <span class="entry-system">
          {isAnswering(conversation) ? "Answering…" : system?.kind === "prompt" ? system.name : "Own prompt"}
        </span>
      </button>
      <button type="button" class="quiet entry-delete" aria-label={`Delete: ${title}`} onClick={() => setAsking(true)}>
        <Icon name="trash" />
      </button>
    </li>
  );
}
