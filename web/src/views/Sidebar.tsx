/** The views, and the conversations: open, begin, search, rename, export, delete (asked twice: it cannot be undone). */
import { useEffect, useRef, useState } from "preact/hooks";
import { titleOf, type Conversation } from "../model/conversation";
import { found } from "../model/find";
import { addressOf, PAGES, type Page } from "../model/routes";
import { pendingTurn, type State } from "../model/state";
import { THEMES, type Theme } from "../browser/theme";
import { Icon, IconButton, type IconName } from "./Icon";
import type { Intents } from "./intents";
import { Mark } from "./Mark";

interface SidebarProps {
  state: State;
  intents: Intents;
  open: boolean;
  onClose: () => void;
  onSheet: () => void;
}

const PAGE_LABELS: Record<Page, { label: string; icon: IconName }> = {
  chat: { label: "Chat", icon: "chat" },
  live: { label: "Live", icon: "tree" },
  compare: { label: "Side by side", icon: "sides" },
};

export function Sidebar({ state, intents, open, onClose, onSheet }: SidebarProps) {
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (open) close.current?.focus();
  }, [open]);
  const begun = state.conversations.some(({ turns }) => turns.length > 0);
  const listed = found(state.conversations, state.search);

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
        <nav class="pages" aria-label="Views">
          {PAGES.map((page) => (
            <a
              key={page}
              href={addressOf(page)}
              aria-current={state.page === page ? "page" : undefined}
              onClick={onClose}
            >
              <Icon name={PAGE_LABELS[page].icon} />
              {PAGE_LABELS[page].label}
            </a>
          ))}
        </nav>
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
        {begun && (
          <label class="search">
            <Icon name="search" />
            <input
              id="search"
              type="search"
              placeholder="Search"
              aria-label="Search conversations"
              value={state.search}
              onInput={(event) => intents.search(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key !== "Escape" || !state.search) return;
                event.preventDefault();
                intents.search("");
              }}
            />
          </label>
        )}
        {listed.length > 0 ? (
          <ul class="conversations">
            {listed.map((conversation) => (
              <Entry
                key={conversation.id}
                conversation={conversation}
                current={state.page === "chat" && conversation.id === state.openId}
                answering={pendingTurn(conversation, state.tab) !== null}
                intents={intents}
                onOpen={() => {
                  intents.open(conversation.id);
                  onClose();
                }}
              />
            ))}
          </ul>
        ) : (
          <p class="sidebar-empty">
            {begun ? "No conversation holds these words." : "Conversations are kept in this browser only."}
          </p>
        )}
        <div class="sidebar-foot">
          <IconButton name="import" label="Import conversations" onClick={intents.openFiles} />
          <IconButton
            name="export"
            label="Export all conversations"
            disabled={!begun}
            onClick={() => intents.saveJson(state.conversations)}
          />
          <ThemeButton intents={intents} />
          <IconButton name="keys" label="Keyboard shortcuts" onClick={onSheet} />
          {state.key && <IconButton name="key" label="Sign out" onClick={() => intents.signIn("")} />}
        </div>
      </aside>
    </>
  );
}

const THEME_ICONS: Record<Theme, IconName> = { system: "half", light: "sun", dark: "moon" };

function ThemeButton({ intents }: { intents: Intents }) {
  const [theme, setTheme] = useState(intents.theme);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
  return (
    <IconButton
      name={THEME_ICONS[theme]}
      label={`Colours: ${theme === "system" ? "as the system" : theme}`}
      onClick={() => {
        intents.setTheme(next);
        setTheme(next);
      }}
    />
  );
}

interface EntryProps {
  conversation: Conversation;
  current: boolean;
  answering: boolean;
  intents: Intents;
  onOpen: () => void;
}

function Entry({ conversation, current, answering, intents, onOpen }: EntryProps) {
  const [mode, setMode] = useState<"closed" | "more" | "rename" | "delete">("closed");
  const title = titleOf(conversation);
  const { system } = conversation;
  if (mode === "delete") {
    return (
      <li class="entry asking">
        <span class="entry-title">Delete this conversation?</span>
        <button type="button" class="small danger" onClick={() => intents.remove(conversation.id)}>
          Delete
        </button>
        <button type="button" class="small" ref={(button) => button?.focus()} onClick={() => setMode("closed")}>
          Keep
        </button>
      </li>
    );
  }
  if (mode === "rename") {
    return (
      <li class="entry asking">
        <form
          class="rename"
          onSubmit={(event) => {
            event.preventDefault();
            intents.rename(conversation.id, String(new FormData(event.currentTarget).get("title") ?? ""));
            setMode("closed");
          }}
        >
          <input
            name="title"
            aria-label="Name of the conversation"
            defaultValue={title}
            maxLength={200}
            ref={selectOnce}
            onKeyDown={(event) => {
              if (event.key !== "Escape") return;
              event.preventDefault();
              setMode("closed");
            }}
          />
          <button type="submit" class="small">
            Rename
          </button>
          <button type="button" class="small" onClick={() => setMode("closed")}>
            Cancel
          </button>
        </form>
      </li>
    );
  }
  return (
    <li class="entry" data-current={current} data-more={mode === "more"}>
      <button type="button" class="entry-open" aria-current={current ? "true" : undefined} onClick={onOpen}>
        <span class="entry-title">{title}</span>
        <span class="entry-system">
          {answering ? "Answering…" : system?.kind === "prompt" ? system.name : "Own prompt"}
        </span>
      </button>
      <button
        type="button"
        class="quiet entry-more"
        aria-label={`More: ${title}`}
        aria-expanded={mode === "more"}
        onClick={() => setMode(mode === "more" ? "closed" : "more")}
      >
        <Icon name="more" />
      </button>
      {mode === "more" && (
        <div class="entry-actions">
          <button type="button" class="small" onClick={() => setMode("rename")}>
            Rename
          </button>
          <button
            type="button"
            class="small"
            aria-label="Export as .md (Markdown)"
            onClick={() => intents.saveMarkdown(conversation)}
          >
            .md
          </button>
          <button
            type="button"
            class="small"
            aria-label="Export as .json"
            onClick={() => intents.saveJson([conversation])}
          >
            .json
          </button>
          <button type="button" class="small danger" onClick={() => setMode("delete")}>
            Delete
          </button>
        </div>
      )}
    </li>
  );
}

function selectOnce(field: HTMLInputElement | null): void {
  field?.select();
}
