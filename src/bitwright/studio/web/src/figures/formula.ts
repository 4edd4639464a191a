// A formula, and a table of its terms: symbol in its colour, value now, meaning.
import { asGroup, keep, part, textWidth, widthOf } from "./svg";
import { table } from "./terms";
import type { Formula } from "./types";

const shown = new WeakMap<HTMLElement, string>();

export function draw(host: HTMLElement, view: Formula): void {
  asGroup(host);
  const width = widthOf(host);
  const box = part(host, "div", "formula-box");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Formula");
  const html = view.html ?? "";
  if (shown.get(box) !== html) {
    shown.set(box, html);
    if (html) box.innerHTML = html;
    else box.textContent = view.tex;
    void document.fonts.ready.then(() => fold(box)); // its fonts load only now
  }
  fold(box);
  const terms = view.terms ?? [];
  const list = part(host, "table", "terms");
  list.hidden = !terms.length;
  table(list, terms, { head: ["Symbol", "Value", "Meaning"] });
  const value = keep(host, width, "value", Math.max(0, ...terms.map((t) => textWidth(t.value ?? "", 15, 500, "mono"))));
  list.classList.toggle("valued", value > 0);
  list.style.setProperty("--value", `${Math.ceil(Math.min(value, width * 0.45))}px`);
}

/** A formula goes on in a next line only where each of its pieces fits into one; else it scrolls. */
function fold(box: HTMLElement): void {
  box.classList.toggle("wraps", [...box.querySelectorAll<HTMLElement>(".katex-html > .katex-base")].every((base) => base.offsetWidth <= box.clientWidth));
}
