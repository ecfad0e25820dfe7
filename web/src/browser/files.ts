/** Files in and out: what is saved comes from the page alone, what is opened is read here and sent nowhere. */
import type { ExportedFile } from "../model/exchange";

export function saveFile({ name, mime, text }: ExportedFile): void {
  const url = URL.createObjectURL(new Blob([text], { type: mime }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // Some browsers read the address only after the click has been handled.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Asks for files and gives their texts; never settles where the person chooses none. */
export function chooseFiles(): Promise<string[]> {
  const input = document.createElement("input");
  input.type = "file";
  input.multiple = true;
  input.accept = ".json,.md,.markdown,application/json,text/markdown";
  return new Promise((resolve) => {
    input.onchange = () => resolve(Promise.all(Array.from(input.files ?? [], (file) => file.text())));
    input.click();
  });
}
