/** Looking for a conversation by what was said in it. Pure. */
import { titleOf, type Conversation } from "./conversation";

/** Those that hold every word, in the title, a question or an answer; all where nothing is looked for. */
export function found(conversations: readonly Conversation[], search: string): Conversation[] {
  const words = plain(search).split(/\s+/).filter(Boolean);
  const begun = conversations.filter(({ turns }) => turns.length > 0);
  if (!words.length) return begun;
  return begun.filter((conversation) => {
    const said = plain(
      [titleOf(conversation), ...conversation.turns.flatMap(({ question, answer }) => [question, answer])].join("\n"),
    );
    return words.every((word) => said.includes(word));
  });
}

/** Without case and accents. */
function plain(text: string): string {
  return text
    .normalize("NFD")
    .replace(/\p{Diacritic}/gu, "")
    .toLowerCase();
}
