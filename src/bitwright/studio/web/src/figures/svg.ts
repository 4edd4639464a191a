// What every drawing shares: a stage as wide as its host, axes with few ticks, colours by meaning, numbers as read, room for labels.
import { select, type Selection } from "d3-selection";
import type { ScaleContinuousNumeric } from "d3-scale";
import type { Tone } from "./types";

export type Stage = Selection<SVGSVGElement, unknown, null, undefined>;
export type Layer = Selection<SVGGElement, unknown, null, undefined>;
export type Scale = ScaleContinuousNumeric<number, number>;

/** Least distance in px between the labels of an axis. */
const TICK_ROOM = 84;
/** Sizes of text in px, as styles/figures.css has them. */
export const SMALL = 12;
export const LABEL = 13;
/** From one line of a label to the next. */
export const ROW = 17;

/** The CSS colour of a tone. */
export const colour = (tone: Tone = "ink"): string => (tone === "ink" ? "var(--ink)" : `var(--d-${tone})`);

/** A CSS transform to a place, so that what moves there can be animated by the style sheet. */
export const at = (x: number, y: number): string => `translate(${+x.toFixed(2)}px,${+y.toFixed(2)}px)`;

export const clamp = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), Math.max(low, high));

const raise = (n: number): string => [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");

/** A number as short as it can be read: 3 significant digits, a true minus sign, powers of ten only where needed. */
export function short(x: number): string {
  if (x === 0) return "0";
  const size = Math.abs(x);
  const sign = x < 0 ? "−" : "";
  if (size < 1e6 && size >= 0.9995e-3) return sign + Number(size.toPrecision(3)).toLocaleString("en-US", { maximumSignificantDigits: 3, useGrouping: size >= 1e4 });
  const [mantissa, exponent] = size.toExponential(2).split("e") as [string, string];
  const lead = Number(mantissa) === 1 ? "" : `${Number(mantissa)}×`;
  return `${sign}${lead}10${raise(Number(exponent))}`;
}

/** The width to draw for: what the host has inside its padding, never too narrow to read. */
export function widthOf(host: HTMLElement): number {
  const style = getComputedStyle(host);
  return Math.max(240, Math.floor(host.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)));
}

const FAMILY = { sans: '"Inter Variable", ui-sans-serif, system-ui, sans-serif', mono: '"JetBrains Mono Variable", ui-monospace, monospace' };
const widths = new Map<string, number>();
const pen = document.createElement("canvas").getContext("2d")!;
document.fonts.addEventListener("loadingdone", () => widths.clear());

/** How wide `text` is in px, without a layout. */
export function textWidth(text: string, size = LABEL, weight = 500, family: keyof typeof FAMILY = "sans"): number {
  const key = `${weight} ${size}px ${FAMILY[family]}`;
  let width = widths.get(key + text);
  if (width === undefined) {
    pen.font = key;
    width = pen.measureText(text).width;
    widths.set(key + text, width);
  }
  return width;
}

/** `text` in lines of at most `most` px, broken between words; within one only where it alone is wider. */
export function wrap(text: string, most: number, size = LABEL, weight = 500): string[] {
  const lines: string[] = [];
  for (const whole of text.split(" ")) {
    let word = whole;
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && textWidth(longer, size, weight) <= most) {
      lines[lines.length - 1] = longer;
      continue;
    }
    while (textWidth(word, size, weight) > most && word.length > 4) {
      let n = word.length - 1;
      while (n > 2 && textWidth(`${word.slice(0, n)}-`, size, weight) > most) n--;
      lines.push(`${word.slice(0, n)}-`);
      word = word.slice(n);
    }
    lines.push(word);
  }
  return lines;
}

/** Rows for labels that stretch from `from` to `to` in ascending order: each the first row with room, -1 where none of `rows` has. */
export function stagger(items: { from: number; to: number }[], rows: number, gap = 8): number[] {
  const ends = new Array<number>(rows).fill(-Infinity);
  return items.map(({ from, to }) => {
    const row = ends.findIndex((end) => from >= end + gap);
    if (row >= 0) ends[row] = to;
    return row;
  });
}

const kept = new WeakMap<HTMLElement, { width: number; most: Map<string, number> }>();

/** The largest `value` this host needed at its present width: room once given is not taken away, so that nothing below it jumps. */
export function keep(host: HTMLElement, width: number, name: string, value: number): number {
  let memory = kept.get(host);
  if (!memory || memory.width !== width) kept.set(host, (memory = { width, most: new Map() }));
  const most = Math.max(value, memory.most.get(name) ?? -Infinity);
  memory.most.set(name, most);
  return most;
}

/** The host's drawing, made once: an svg of `width` x `height` px, hidden from assistive technology (`say` speaks). */
export function stage(host: HTMLElement, width: number, height: number): Stage {
  let svg = select(host).select<SVGSVGElement>(":scope > svg");
  if (svg.empty()) svg = select(host).append("svg").attr("aria-hidden", "true").attr("focusable", "false");
  return svg.attr("width", width).attr("height", height).attr("viewBox", `0 0 ${width} ${height}`) as never;
}

/** A named group of a drawing, made once, in the order of first use. */
export function layer(svg: Stage | Layer, name: string): Layer {
  let g = svg.select<SVGGElement>(`:scope > g.${name}`);
  if (g.empty()) g = svg.append("g").attr("class", name) as never;
  return g as never;
}

/** A host whose parts can be read or used by themselves is a group, not an image. */
export function asGroup(host: HTMLElement): void {
  if (host.getAttribute("role") === "img") host.setAttribute("role", "group");
}

/** A child of the host by class, made once. */
export function part<K extends keyof HTMLElementTagNameMap>(host: HTMLElement, tag: K, name: string): HTMLElementTagNameMap[K] {
  const there = host.querySelector<HTMLElementTagNameMap[K]>(`:scope > .${name}`);
  if (there) return there;
  const made = document.createElement(tag);
  made.className = name;
  host.append(made);
  return made;
}

/** Runs `redraw` when the system turns dark or light; only for what is painted rather than styled. */
const themed = new WeakMap<HTMLElement, () => void>();
export function onTheme(host: HTMLElement, redraw: () => void): void {
  if (!themed.has(host)) matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => host.isConnected && themed.get(host)!());
  themed.set(host, redraw);
}

/** How an axis writes its ticks: as they are, or as multiples of a power of ten that its label then names. */
export function ticked(values: number[], log = false): { write: (d: number) => string; unit: string } {
  const largest = Math.max(...values.map(Math.abs));
  if (log || values.length < 2 || (largest >= 2e-3 && largest < 1e6)) return { write: short, unit: "" };
  const power = Math.floor(Math.log10(largest) + 1e-9);
  return { write: (d) => short(Number((d / 10 ** power).toPrecision(6))), unit: ` (×10${raise(power)})` };
}

/** The ticks whose labels do not touch each other. */
function roomy(values: number[], place: (d: number) => number, write: (d: number) => string): number[] {
  let end = -Infinity;
  return values.filter((d) => {
    const half = textWidth(write(d), SMALL, 400) / 2;
    if (place(d) - half < end + 10) return false;
    end = place(d) + half;
    return true;
  });
}

/** Text in lines below each other; each is aligned as the text is. */
export function writeLines(text: SVGTextElement, lines: string[], step = ROW): void {
  text.replaceChildren(...lines.map((line, i) => {
    const span = document.createElementNS("http://www.w3.org/2000/svg", "tspan");
    span.setAttribute("x", "0");
    span.setAttribute("y", String(i * step));
    span.textContent = line;
    return span;
  }));
}

/**
 * A horizontal axis at `y`: hairlines up to `top` and labels below; `label` names it in the middle. Labels stay between 0 and `right`;
 * what comes back is the height in px that the name needs beyond one line.
 */
export function axisX(g: Layer, scale: Scale, y: number, top: number, label: string, right: number, ticks?: number[]): number {
  const [low, high] = scale.range() as [number, number];
  const values = ticks ?? scale.ticks(Math.max(2, Math.floor((high - low) / TICK_ROOM)));
  g.selectAll<SVGLineElement, number>("line.grid").data(values, (d) => d).join("line").attr("class", "grid")
    .attr("y1", top).attr("y2", y).style("transform", (d) => at(scale(d), 0));
  const { write, unit } = ticked(values, "base" in scale);
  const half = (text: string, size: number, weight: number): number => textWidth(text, size, weight) / 2;
  g.selectAll<SVGTextElement, number>("text.tick").data(roomy(values, scale, write), (d) => d).join("text").attr("class", "tick").attr("text-anchor", "middle").text(write)
    .style("transform", (d) => at(clamp(scale(d), half(write(d), SMALL, 400), right - half(write(d), SMALL, 400)), y + 18));
  const name = label && label + unit;
  const lines = wrap(name, right);
  const widest = Math.max(...lines.map((line) => half(line, LABEL, 500)));
  g.selectAll<SVGTextElement, string>("text.axis").data(name ? [name] : []).join("text").attr("class", "axis").attr("text-anchor", "middle")
    .style("transform", at(clamp((low + high) / 2, widest, right - widest), y + 38)).each(function () {
      writeLines(this as SVGTextElement, lines);
    });
  return (lines.length - 1) * ROW;
}

/** A vertical axis at `x`: hairlines to `right`, labels on the left, written by `write`. */
export function axisY(g: Layer, scale: Scale, x: number, right: number, ticks: number[], write: (d: number) => string): void {
  g.selectAll<SVGLineElement, number>("line.grid").data(ticks, (d) => d).join("line").attr("class", "grid")
    .attr("x1", x).attr("x2", right).style("transform", (d) => at(0, scale(d)));
  g.selectAll<SVGTextElement, number>("text.tick").data(ticks, (d) => d).join("text").attr("class", "tick").attr("text-anchor", "end").text(write)
    .style("transform", (d) => at(x - 8, scale(d) + 4));
}

/** Ticks of a log scale: powers of ten, thinned where there are many; also 2 and 5 times them where there are few. */
export function decades(low: number, high: number, most = 7): number[] {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  const found: number[] = [];
  for (let p = first; p <= last; p += step) found.push(Number(`1e${p}`));
  if (found.length > 2) return found;
  const finer: number[] = [];
  for (let p = first - 1; p <= last; p++) for (const m of [1, 2, 5]) finer.push(Number(`${m}e${p}`));
  return finer.filter((x) => x >= low * (1 - 1e-9) && x <= high * (1 + 1e-9));
}

/** The name of an axis with its unit, and whether it is logarithmic. */
export const named = (label: string, unit = "", log = false): string => [label, unit, log && !/\blog/i.test(label) ? "log scale" : ""].filter(Boolean).join(", ");
