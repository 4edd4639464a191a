// What every drawing shares: a stage as wide as its host, axes with few ticks, colours by meaning, numbers as read.
import { format } from "d3-format";
import { select, type Selection } from "d3-selection";
import type { ScaleContinuousNumeric } from "d3-scale";
import type { Tone } from "./types";

export type Layer = Selection<SVGGElement, unknown, null, undefined>;
export type Scale = ScaleContinuousNumeric<number, number>;

/** Least distance in px between the labels of an axis. */
const TICK_ROOM = 84;

/** The CSS colour of a tone. */
export const colour = (tone: Tone = "ink"): string => (tone === "ink" ? "var(--ink)" : `var(--d-${tone})`);

/** A number as short as it can be read: 3 significant digits, a true minus sign, powers of ten only where needed. */
export function short(x: number): string {
  if (x === 0) return "0";
  const size = Math.abs(x);
  const text = size >= 1e5 || size < 1e-4 ? format(".1e")(x) : format(".3~r")(x);
  return text.replace(/^-/, "−").replace("e−", "e-").replace("e+", "e");
}

/** The width to draw for: the host's own, never too narrow to read. */
export const widthOf = (host: HTMLElement): number => Math.max(240, Math.floor(host.clientWidth));

/** The host's drawing, made once: an svg of `width` x `height` px, hidden from assistive technology (`say` speaks). */
export function stage(host: HTMLElement, width: number, height: number): Selection<SVGSVGElement, unknown, null, undefined> {
  let svg = select(host).select<SVGSVGElement>(":scope > svg");
  if (svg.empty()) {
    svg = select(host).append("svg").attr("aria-hidden", "true").attr("focusable", "false");
  }
  return svg.attr("width", width).attr("height", height).attr("viewBox", `0 0 ${width} ${height}`) as never;
}

/** A named group of a drawing, made once, in the order of first use. */
export function layer(svg: Selection<SVGSVGElement, unknown, null, undefined>, name: string): Layer {
  let g = svg.select<SVGGElement>(`:scope > g.${name}`);
  if (g.empty()) g = svg.append("g").attr("class", name);
  return g as never;
}

/** A horizontal axis at `y`: hairlines up to `top` and labels below; `label` names it at its end. */
export function axisX(g: Layer, scale: Scale, y: number, top: number, label = "", ticks?: number[]): void {
  const [low, high] = scale.range() as [number, number];
  const values = ticks ?? scale.ticks(Math.max(2, Math.floor((high - low) / TICK_ROOM)));
  g.selectAll<SVGLineElement, number>("line.grid").data(values, (d) => d).join("line").attr("class", "grid")
    .attr("x1", (d) => scale(d)).attr("x2", (d) => scale(d)).attr("y1", top).attr("y2", y);
  g.selectAll<SVGTextElement, number>("text.tick").data(values, (d) => d).join("text").attr("class", "tick")
    .attr("x", (d) => scale(d)).attr("y", y + 18).attr("text-anchor", "middle").text(short);
  g.selectAll<SVGTextElement, string>("text.axis").data(label ? [label] : []).join("text").attr("class", "axis")
    .attr("x", (low + high) / 2).attr("y", y + 36).attr("text-anchor", "middle").text((d) => d);
}

/** A vertical axis at `x`: hairlines to `right`, labels on the left; `label` stands above it. */
export function axisY(g: Layer, scale: Scale, x: number, right: number, label = "", ticks?: number[]): void {
  const [bottom, top] = scale.range() as [number, number];
  const values = ticks ?? scale.ticks(Math.max(2, Math.floor(Math.abs(bottom - top) / 56)));
  g.selectAll<SVGLineElement, number>("line.grid").data(values, (d) => d).join("line").attr("class", "grid")
    .attr("x1", x).attr("x2", right).attr("y1", (d) => scale(d)).attr("y2", (d) => scale(d));
  g.selectAll<SVGTextElement, number>("text.tick").data(values, (d) => d).join("text").attr("class", "tick")
    .attr("x", x - 8).attr("y", (d) => scale(d) + 4).attr("text-anchor", "end").text(short);
  g.selectAll<SVGTextElement, string>("text.axis").data(label ? [label] : []).join("text").attr("class", "axis")
    .attr("x", 0).attr("y", top - 12).text((d) => d);
}

/** Ticks of a log scale: powers of ten, thinned where there are many. */
export function decades(low: number, high: number, most = 7): number[] {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  const found: number[] = [];
  for (let p = first; p <= last; p += step) found.push(10 ** p);
  return found;
}
