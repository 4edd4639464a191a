import type { View } from "./types";

export function draw(host: HTMLElement, view: View): void {
  host.textContent = view.say;
}
