// A program that ran: the line just executed, what each name then means, and what was printed.
import { asGroup, keep, part, textWidth, widthOf } from "./svg";
import { table } from "./terms";
import type { Code } from "./types";

/** Width in px from which names stand beside the program. */
const BESIDE = 720;
const GAP = 24;
const shown = new WeakMap<HTMLElement, string>();

export function draw(host: HTMLElement, view: Code): void {
  asGroup(host);
  const width = widthOf(host);
  const frame = part(host, "div", "program");
  const longest = Math.max(...view.source.split("\n").map((l) => textWidth(l, 14, 400, "mono"))) + 70;
  const beside = width >= BESIDE;
  frame.classList.toggle("beside", beside);
  const source = Math.ceil(Math.min(longest, width * 0.6));
  frame.style.setProperty("--source", `${source}px`);

  const box = part(frame, "pre", "program-source");
  if (shown.get(box) !== view.source) {
    shown.set(box, view.source);
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Program");
    const code = document.createElement("code");
    const lines = (view.html || escape(view.source)).replace(/\n$/, "").split("\n");
    code.innerHTML = lines.map((line, i) => `<span class="line"><span class="number" aria-hidden="true">${i + 1}</span><span class="text">${line || " "}</span></span>`).join("");
    box.replaceChildren(code);
  }
  box.querySelectorAll(".line").forEach((line, i) => {
    const now = i + 1 === view.line;
    line.classList.toggle("now", now);
    if (now) line.setAttribute("aria-current", "true");
    else line.removeAttribute("aria-current");
  });

  const side = part(frame, "div", "program-side");
  const list = part(side, "table", "terms");
  list.classList.add("valued");
  list.hidden = !view.variables?.length;
  table(list, view.variables ?? [], { code: true, head: ["Name", "Value", "Type"] });
  const value = keep(host, width, "value", Math.max(40, ...(view.variables ?? []).map((t) => textWidth(t.value ?? "", 14, 500, "mono"))));
  list.style.setProperty("--value", `${Math.ceil(Math.min(value, (beside ? width - source - GAP : width) * 0.5))}px`);

  const prints = Boolean(view.output) || /\bprint\(/.test(view.source);
  const output = part(side, "div", "program-output");
  output.hidden = !prints;
  part(output, "p", "output-name").textContent = "printed";
  const text = part(output, "pre", "output-text");
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "Printed");
  text.textContent = view.output ?? "";
  side.style.minHeight = `${keep(host, width, "side", side.scrollHeight)}px`;
}

const escape = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
