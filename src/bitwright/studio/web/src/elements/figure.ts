// <bw-figure>: controls, a drawing, its readouts and its words. What is drawn comes from a view; views come precomputed or from `compute`.
import { computing, type Compute } from "../compute";
import { drawing } from "../figures";
import type { Control, Draw, Payload, StepsControl, View } from "../figures/types";

/** Time a step of a story stays before the next, in ms: to see it move, and to read its caption. */
const STEP = 1200;
const READ = 28;
/** Quiet time after which a changed state is read aloud. */
const SPEAK = 500;
/** Most states that are drawn once beforehand. */
const REHEARSED = 24;
/** Most room in px that is kept free for taller states. */
const KEPT = 520;

function make<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Record<string, string> = {}, ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const count = (c: Control): number => (c.type === "slider" ? c.values.length : c.type === "choice" ? c.options.length : c.captions.length);

/** The page's words come first: figures start once these are on the screen. */
const painted = new Promise<void>((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

export class FigureElement extends HTMLElement {
  private payload!: Payload;
  private draw!: Draw;
  private compute?: Compute;
  private places: number[] = [];
  private host = make("div", { class: "figure-stage", role: "img" });
  private facts = make("dl", { class: "readouts" });
  private words = make("p", { class: "visually-hidden", "aria-live": "polite" });
  private table = make("p", { class: "figure-words" });
  private sync: (() => void)[] = [];
  private speaking = 0;
  private playing = 0;
  private width = 0;

  async connectedCallback(): Promise<void> {
    const script = this.querySelector("script");
    if (!script || this.payload) return;
    this.payload = JSON.parse(script.textContent ?? "") as Payload;
    this.places = this.payload.controls.map((c) => c.start);
    const loading = drawing(this.getAttribute("kind") ?? "");
    await painted;
    this.draw = await loading;
    if (this.payload.compute) this.compute = await computing(this.payload.compute);
    this.host.setAttribute("aria-label", this.getAttribute("alt") ?? "");
    const words = make("details", { class: "figure-text" }, make("summary", {}, "In words"), this.table);
    this.host.addEventListener("take", (event) => this.take((event as CustomEvent<Record<string, number>>).detail));
    const controls = this.controls();
    this.querySelector(".figure-plain")?.remove();
    this.append(this.host, ...(controls ? [controls] : []), this.facts, words, this.words);
    this.show(false);
    if (document.fonts.status === "loading") void document.fonts.ready.then(() => ((this.width = 0), this.show(false)));
    new ResizeObserver(() => {
      if (this.host.clientWidth !== this.width) this.show(false);
    }).observe(this.host);
  }

  /** The view of the present positions. */
  view(): View {
    const { base, states, controls } = this.payload;
    if (this.compute) {
      const values = Object.fromEntries(controls.map((c, i) => [c.name, this.value(c, this.places[i]!)]));
      return this.compute(base as never, values as never);
    }
    const index = controls.reduce((sum, c, i) => sum * count(c) + this.places[i]!, 0);
    return { ...base, ...states[index] } as View;
  }

  private value(control: Control, place: number): number | string {
    return control.type === "slider" ? control.values[place]! : control.type === "choice" ? control.options[place]![0] : place;
  }

  private show(moving = true): void {
    const view = this.view();
    this.toggleAttribute("data-still", !moving);
    if (this.width !== this.host.clientWidth) this.rehearse();
    this.draw(this.host, view as never);
    this.facts.replaceChildren(...(view.readouts ?? []).map((r) =>
      make("div", {}, make("dt", {}, r.label), make("dd", { class: `tone-${r.tone ?? "ink"}` }, r.value))));
    this.facts.hidden = !view.readouts?.length;
    this.table.textContent = view.say;
    for (const update of this.sync) update();
    clearTimeout(this.speaking);
    if (moving) this.speaking = window.setTimeout(() => (this.words.textContent = view.say), SPEAK);
  }

  /** Draw every state once, unseen: each leaves the room that it needs, so that nothing jumps when the figure moves on. */
  private rehearse(): void {
    const { base, states } = this.payload;
    this.width = this.host.clientWidth;
    this.host.style.minHeight = "";
    if (states.length < 2 || states.length > REHEARSED) return;
    const heights = (): number[] => states.map((state) => {
      this.draw(this.host, { ...base, ...state } as never);
      return this.host.offsetHeight;
    });
    // Where they differ, once more: only then has each the room that all need.
    let found = heights();
    if (new Set(found).size > 1) found = heights();
    const tallest = Math.max(...found);
    this.host.style.minHeight = `${Math.min(tallest, KEPT)}px`;
  }

  private move(index: number, place: number): void {
    if (place === this.places[index]) return;
    this.places[index] = place;
    this.show();
  }

  /** Bring sliders to the positions nearest to what was dragged in the drawing. */
  private take(wanted: Record<string, number>): void {
    this.payload.controls.forEach((control, i) => {
      const value = wanted[control.name];
      if (control.type !== "slider" || value === undefined) return;
      const far = control.values.map((v) => Math.abs(Number(v) - value));
      this.places[i] = far.indexOf(Math.min(...far));
    });
    this.show();
  }

  private controls(): HTMLElement | undefined {
    const { controls } = this.payload;
    if (!controls.length) return undefined;
    const box = make("div", { class: "figure-controls" });
    controls.forEach((control, i) => box.append(control.type === "slider" ? this.slider(control, i) : control.type === "choice" ? this.choice(control, i) : this.steps(control, i)));
    if (controls.some((c) => c.type !== "steps")) {
      const reset = make("button", { class: "button quiet reset", type: "button" }, "Reset");
      reset.addEventListener("click", () => {
        this.places = controls.map((c) => c.start);
        this.show();
      });
      this.sync.push(() => (reset.disabled = controls.every((c, i) => this.places[i] === c.start)));
      box.append(reset);
    }
    return box;
  }

  /** A range input over the places 0 ... n-1; nothing animates while it is dragged. */
  private range(n: number, index: number, label: string, text: () => string): HTMLInputElement {
    const input = make("input", { type: "range", min: "0", max: String(n - 1), step: "1", "aria-label": label });
    input.addEventListener("pointerdown", () => this.setAttribute("data-dragging", ""));
    for (const end of ["pointerup", "pointercancel", "blur"]) input.addEventListener(end, () => this.removeAttribute("data-dragging"));
    input.addEventListener("input", () => this.move(index, input.valueAsNumber));
    this.sync.push(() => {
      input.value = String(this.places[index]);
      input.style.setProperty("--share", String(this.places[index]! / (n - 1)));
      input.setAttribute("aria-valuetext", text());
    });
    return input;
  }

  private slider(control: Extract<Control, { type: "slider" }>, index: number): HTMLElement {
    const read = (): string => {
      const place = this.places[index]!;
      return control.labels?.[place] ?? [control.values[place], control.unit].filter((x) => x !== undefined && x !== "").join(" ");
    };
    const output = make("output", { class: "control-value" });
    this.sync.push(() => (output.textContent = read()));
    const input = this.range(control.values.length, index, control.label, read);
    return make("div", { class: "control" }, make("div", { class: "control-head" }, make("span", { class: "control-label" }, control.label), output), input);
  }

  private choice(control: Extract<Control, { type: "choice" }>, index: number): HTMLElement {
    const name = `${this.getAttribute("name")}-${control.name}`;
    const set = make("fieldset", { class: "control segmented" }, make("legend", { class: "control-label" }, control.label));
    const row = make("div", { class: "segments" });
    control.options.forEach(([value, label], place) => {
      const input = make("input", { type: "radio", name, value });
      input.addEventListener("change", () => this.move(index, place));
      this.sync.push(() => (input.checked = this.places[index] === place));
      row.append(make("label", {}, input, make("span", {}, label)));
    });
    set.append(row);
    return set;
  }

  private steps(control: StepsControl, index: number): HTMLElement {
    const last = control.captions.length - 1;
    const play = make("button", { type: "button", class: "button play" });
    const back = make("button", { type: "button", class: "button quiet", "aria-label": "Step back" }, "‹");
    const next = make("button", { type: "button", class: "button quiet", "aria-label": "Step forward" }, "›");
    const place = (): string => `${control.label ?? "Step"} ${this.places[index]! + 1} of ${last + 1}`;
    const input = this.range(last + 1, index, control.label ?? "Step", () => `${place()}: ${control.captions[this.places[index]!]}`);
    const where = make("output", { class: "control-value" });
    const caption = make("p", { class: "step-caption" });
    const stop = (): void => {
      clearTimeout(this.playing);
      this.playing = 0;
      label();
    };
    const label = (): void => {
      const at = this.places[index]!;
      play.textContent = this.playing ? "Pause" : at === last ? "Again" : "Play";
      back.disabled = at === 0;
      next.disabled = at === last;
      where.textContent = place();
      caption.textContent = control.captions[at]!;
    };
    const go = (): void => {
      this.playing = window.setTimeout(() => {
        this.move(index, Math.min(last, this.places[index]! + 1));
        if (this.places[index] === last || !this.isConnected) stop();
        else go();
      }, STEP + READ * control.captions[this.places[index]!]!.length);
      label();
    };
    play.addEventListener("click", () => {
      if (this.playing) return stop();
      if (this.places[index] === last) this.move(index, 0);
      else this.move(index, this.places[index]! + 1);
      if (this.places[index] === last) stop();
      else go();
    });
    back.addEventListener("click", () => (stop(), this.move(index, this.places[index]! - 1)));
    next.addEventListener("click", () => (stop(), this.move(index, this.places[index]! + 1)));
    input.addEventListener("pointerdown", stop);
    this.sync.push(label);
    return make("div", { class: "control story" }, make("div", { class: "story-bar" }, play, back, next, input, where), caption);
  }
}

customElements.define("bw-figure", FigureElement);
