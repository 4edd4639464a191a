// Two matrices of one shape, one over the other; a slider uncovers one or the other.
import { asGroup, colour, onTheme, part, widthOf } from "./svg";
import { cellSize, paint, strip } from "./matrix";
import type { Compare, Picture } from "./types";

const TALL = 440;
const STEP = 5;

export function draw(host: HTMLElement, view: Compare): void {
  asGroup(host);
  const width = widthOf(host);
  const rows = view.before.values.length;
  const columns = view.before.values[0]?.length ?? 0;
  const cell = cellSize(rows, columns, width, TALL, 32);

  const frame = part(host, "div", "compare");
  const head = part(frame, "div", "compare-head");
  const box = part(frame, "div", "compare-box");
  let input = frame.querySelector<HTMLInputElement>(":scope > input");
  if (!input) {
    input = document.createElement("input");
    Object.assign(input, { type: "range", min: "0", max: "100", step: "1", value: "50" });
    frame.append(input);
    start(frame, box, input);
  }
  frame.style.width = `${cell * columns}px`;
  box.style.height = `${cell * rows}px`;

  const sides: [string, Picture][] = [["before", view.before], ["after", view.after]];
  const colourAll = (): void => {
    for (const [side, picture] of sides) {
      const canvas = part(box, "canvas", side);
      canvas.classList.add("pixels");
      paint(canvas, picture.values, { peak: view.peak, colours: view.colours, tone: picture.tone ?? "float" });
      const name = part(head, "div", `compare-${side}`);
      const label = part(name, "strong", "name");
      label.textContent = picture.label;
      label.style.color = colour(picture.tone ?? "float");
      const scale = part(name, "div", "scale");
      strip(scale, { peak: view.peak, colours: view.colours, tone: picture.tone ?? "float" });
    }
  };
  colourAll();
  onTheme(host, colourAll);
  part(box, "div", "compare-line");
  input.setAttribute("aria-label", `Divider: ${view.before.label} on its left, ${view.after.label} on its right`);
  split(frame, input);
}

/** Put the divider where the slider stands. */
function split(frame: HTMLElement, input: HTMLInputElement): void {
  frame.style.setProperty("--split", `${input.value}%`);
  input.style.setProperty("--share", String(input.valueAsNumber / 100));
  input.setAttribute("aria-valuetext", `${input.value} % of the first picture`);
}

/** The divider follows the slider, and a pointer on the picture. */
function start(frame: HTMLElement, box: HTMLElement, input: HTMLInputElement): void {
  input.addEventListener("input", () => split(frame, input));
  input.addEventListener("keydown", (event) => {
    const way = { PageUp: STEP, PageDown: -STEP }[event.key];
    if (way === undefined) return;
    event.preventDefault();
    input.value = String(input.valueAsNumber + way * 2);
    split(frame, input);
  });
  const follow = (event: PointerEvent): void => {
    const { left, width } = box.getBoundingClientRect();
    input.value = String(Math.round((100 * (event.clientX - left)) / width));
    split(frame, input);
  };
  box.addEventListener("pointerdown", (event) => {
    box.setPointerCapture(event.pointerId);
    follow(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (box.hasPointerCapture(event.pointerId)) follow(event);
  });
}
