/** The sheet of all keys. */
import { SHORTCUTS } from "../model/shortcuts";
import { Dialog } from "./Dialog";

export function Shortcuts({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard shortcuts" onClose={onClose}>
      {SHORTCUTS.map(({ title, entries }) => (
        <section key={title} class="shortcuts" aria-label={title}>
          <h3>{title}</h3>
          <dl>
            {entries.map(({ keys, does }) => (
              <div key={keys}>
                <dt>
                  {keys.split(" ").map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </dt>
                <dd>{does}</dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
      <p class="field-help">Single letters and digits work while you are not writing.</p>
    </Dialog>
  );
}
