// A cursor over the parts of a drawing: pointer or arrow keys pick one, a line below the drawing says its value.
import { asGroup, part } from "./svg";

export interface Reading {
  /** Picks what is nearest to a place of the drawing, or nothing. */
  near(x: number, y: number): void;
  /** Moves to the next part in a direction; the first key picks a first one. */
  step(dx: number, dy: number): void;
  /** Lets go. */
  none(): void;
}

const readings = new WeakMap<HTMLElement, Reading>();
const KEYS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The box to draw in, focusable, and the line below it; made once. `what` names the parts. */
export function reader(host: HTMLElement, what: string, reading: Reading): { box: HTMLElement; line: HTMLElement } {
  asGroup(host);
  const box = part(host, "div", "reader");
  const line = part(host, "p", "reader-line");
  if (!readings.has(box)) {
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-label", `${what}: the arrow keys move from one to the next`);
    line.setAttribute("aria-live", "polite");
    const now = (): Reading => readings.get(box)!;
    box.addEventListener("pointermove", (event) => {
      const frame = box.getBoundingClientRect();
      now().near(event.clientX - frame.left, event.clientY - frame.top);
    });
    box.addEventListener("pointerleave", () => box.matches(":focus-visible") || now().none());
    box.addEventListener("blur", () => now().none());
    box.addEventListener("keydown", (event) => {
      const way = KEYS[event.key];
      if (event.key === "Escape") now().none();
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      now().step(...way);
    });
  }
  readings.set(box, reading);
  return { box, line };
}
