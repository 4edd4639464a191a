// One axis with levels as strokes, their codes below, and values above it with arrows to where they are rounded: an arrow's length is the error.
import { scaleLinear } from "d3-scale";
import { at, axisX, clamp, colour, keep, layer, SMALL, stage, stagger, textWidth, widthOf } from "./svg";
import type { Dot, NumberLine, Tick } from "./types";

const PAD = 14;
const LINE = 17;
const LANE = 26;
const LABELLED = 40;
const MOST_LANES = 8;
const HEAD = 7;

const lanes = new WeakMap<HTMLElement, Map<string, number>>();

/** A lane for every dot in which neither its arrow nor its label meets another's; it stays in the one it had where it can. */
function assign(host: HTMLElement, dots: Dot[], x: (v: number) => number, width: number): Map<string, number> {
  const before = lanes.get(host) ?? new Map<string, number>();
  const taken: [number, number][][] = Array.from({ length: MOST_LANES }, () => []);
  const found = new Map<string, number>();
  for (const dot of dots) {
    const ends = [x(dot.at), x(dot.to ?? dot.at)];
    const half = dot.label ? textWidth(dot.label, SMALL) / 2 : 0;
    const middle = clamp(ends[0]!, half, width - half);
    const from = Math.min(...ends, middle - half) - 10;
    const to = Math.max(...ends, middle + half) + 10;
    const free = (lane: number): boolean => taken[lane]!.every(([a, b]) => to <= a || from >= b);
    const old = before.get(dot.id);
    const lane = old !== undefined && free(old) ? old : Math.max(0, taken.findIndex((_, i) => free(i)));
    taken[lane]!.push([from, to]);
    found.set(dot.id, lane);
  }
  lanes.set(host, found);
  return found;
}

/** Which levels are named, and in which row below the axis: every 1st, 2nd, 4th ... one, as room allows. */
function tags(levels: Tick[], x: (v: number) => number, width: number): { tick: Tick; x: number; row: number }[] {
  const zero = levels.reduce((best, tick, i) => (Math.abs(tick.at) < Math.abs(levels[best]!.at) ? i : best), 0);
  for (let stride = 1; ; stride *= 2) {
    const items = levels.filter((_, i) => (i - zero) % stride === 0).filter((t) => t.label || t.code).map((tick) => {
      const half = Math.max(textWidth(tick.label ?? "", SMALL, 600), textWidth(tick.code ?? "", SMALL, 500, "mono")) / 2;
      const middle = clamp(x(tick.at), half, width - half);
      return { tick, x: middle, from: middle - half, to: middle + half };
    });
    const rows = stagger(items, 2, 6);
    if (!rows.includes(-1)) return items.map((item, i) => ({ tick: item.tick, x: item.x, row: rows[i]! }));
  }
}

export function draw(host: HTMLElement, view: NumberLine): void {
  const width = widthOf(host);
  const x = scaleLinear([view.low, view.high], [PAD, width - PAD]).clamp(true);
  const levels = (view.levels ?? []).filter((t) => t.at >= view.low && t.at <= view.high).sort((a, b) => a.at - b.at);
  const dots = view.dots ?? [];
  const lane = assign(host, dots, x, width);

  const spans = (view.spans ?? []).map((span, key) => {
    const [a, b] = [x(span.low), x(span.high)];
    const half = textWidth(span.label ?? "", SMALL, 600) / 2;
    const middle = clamp((a + b) / 2, half, width - half);
    return { ...span, key, a, b, middle, from: middle - half, to: middle + half, row: 0 };
  }).sort((p, q) => p.from - q.from);
  const written = spans.filter((s) => s.label);
  stagger(written, 3, 10).forEach((row, i) => (written[i]!.row = row));

  const spanRows = keep(host, width, "spans", Math.max(0, ...written.map((s) => s.row + 1)));
  const laneCount = keep(host, width, "lanes", Math.max(1, ...[...lane.values()].map((l) => l + 1)));
  const laneTall = keep(host, width, "lane", dots.some((d) => d.label) ? LABELLED : LANE);
  const top = 4 + spanRows * LINE + (spanRows ? 6 : 0);
  const floor = top + 24 + laneCount * laneTall + 8;
  const laneY = (id: string): number => floor - 22 - lane.get(id)! * laneTall;

  const named = tags(levels, x, width);
  const block = keep(host, width, "block", Number(named.some((t) => t.tick.label)) + Number(named.some((t) => t.tick.code)));
  const rows = keep(host, width, "rows", Math.max(1, ...named.map((t) => t.row + 1)));
  const numbers = floor + Math.max(1, block) * rows * LINE + 6;
  const height = numbers + (view.x ? 44 : 26);
  const svg = stage(host, width, height);

  const shaded = layer(svg, "spans");
  shaded.selectAll<SVGRectElement, (typeof spans)[0]>("rect").data(spans, (s) => s.key).join("rect").attr("class", "span")
    .attr("y", top).attr("height", floor - top).attr("width", 1).style("fill", (s) => colour(s.tone ?? "mute"))
    .style("transform", (s) => `translateX(${s.a}px) scaleX(${Math.max(0, s.b - s.a)})`);
  const edges = spans.flatMap((s) => [{ key: `${s.key}a`, x: s.a, s }, { key: `${s.key}b`, x: s.b, s }]);
  shaded.selectAll<SVGLineElement, (typeof edges)[0]>("line").data(edges, (e) => e.key).join("line").attr("class", "span-edge")
    .attr("y1", top).attr("y2", floor).style("stroke", (e) => colour(e.s.tone ?? "mute")).style("transform", (e) => at(e.x, 0));

  stage(host, width, height + axisX(layer(svg, "axis"), x, numbers, floor, view.x ?? "", width));
  layer(svg, "line").selectAll("line").data([0]).join("line").attr("class", "base").attr("x1", 0).attr("x2", width).attr("y1", floor).attr("y2", floor);

  const crowd = Math.min(1, width / (levels.length * 9 || 1));
  const strokes = levels.map((tick, i) => ({ tick, key: tick.code || i - (levels.length >> 1) }));
  layer(svg, "levels").selectAll<SVGLineElement, (typeof strokes)[0]>("line").data(strokes, (s) => s.key).join("line").attr("class", "level")
    .attr("y1", top + 8).attr("y2", floor + 5).style("stroke", (s) => colour(s.tick.tone ?? "quant")).style("stroke-width", Math.max(1, 3 * crowd)).style("opacity", 0.4 + 0.6 * crowd)
    .style("transform", (s) => at(x(s.tick.at), 0));
  const below = layer(svg, "codes");
  const depth = (row: number): number => floor + 20 + row * block * LINE;
  const key = (t: (typeof named)[0]): string => t.tick.code || t.tick.label || "";
  below.selectAll<SVGTextElement, (typeof named)[0]>("text.direct").data(named.filter((t) => t.tick.label), key).join("text").attr("class", "direct small").attr("text-anchor", "middle")
    .style("fill", (t) => colour(t.tick.tone ?? "quant")).text((t) => t.tick.label!).style("transform", (t) => at(t.x, depth(t.row)));
  below.selectAll<SVGTextElement, (typeof named)[0]>("text.code-label").data(named.filter((t) => t.tick.code), key).join("text").attr("class", "code-label").attr("text-anchor", "middle")
    .style("fill", (t) => colour(t.tick.tone ?? "quant")).text((t) => t.tick.code!).style("transform", (t) => at(t.x, depth(t.row) + (block > 1 ? LINE : 0)));

  shaded.selectAll<SVGTextElement, (typeof spans)[0]>("text").data(written.filter((s) => s.row >= 0), (s) => s.key).join("text").attr("class", "direct small").attr("text-anchor", "middle")
    .style("fill", (s) => colour(s.tone ?? "mute")).text((s) => s.label!).style("transform", (s) => at(s.middle, 15 + s.row * LINE));

  // An arrow grows out of its dot: inner parts are scaled and moved from the dot's place.
  const moving = dots.filter((d) => d.to !== undefined && d.to !== null && Math.abs(x(d.to) - x(d.at)) >= 1);
  const length = (d: Dot): number => x(d.to!) - x(d.at);
  const arrows = layer(svg, "arrows").selectAll<SVGGElement, Dot>("g.arrow").data(moving, (d) => d.id).join((enter) => {
    const g = enter.append("g").attr("class", "arrow");
    g.append("line").attr("x2", 1).attr("vector-effect", "non-scaling-stroke");
    g.append("path").attr("d", `M0,0L${-HEAD},${-HEAD * 0.62}L${-HEAD},${HEAD * 0.62}Z`);
    return g;
  });
  arrows.style("transform", (d) => at(x(d.at), laneY(d.id)));
  arrows.select("line").style("transform", (d) => `scaleX(${length(d) - Math.sign(length(d)) * (Math.abs(length(d)) > 2 * HEAD ? HEAD - 1 : 0)})`);
  arrows.select("path").style("transform", (d) => `translateX(${length(d)}px) scaleX(${Math.sign(length(d))})`).style("opacity", (d) => Number(Math.abs(length(d)) > HEAD + 6));

  const moved = new Set(moving.map((d) => d.id));
  const beads = layer(svg, "dots").selectAll<SVGGElement, Dot>("g.dot").data(dots, (d) => d.id).join((enter) => {
    const g = enter.append("g").attr("class", "dot");
    g.append("circle");
    g.append("text").attr("class", "direct small").attr("text-anchor", "middle").attr("y", -12);
    return g;
  });
  beads.style("transform", (d) => at(x(d.at), laneY(d.id)));
  beads.select("circle").style("r", (d) => (moved.has(d.id) ? "4.5px" : "5.5px")).style("fill", (d) => colour(d.tone ?? "float"));
  beads.select("text").style("fill", (d) => colour(d.tone ?? "float")).text((d) => d.label ?? "").attr("x", (d) => {
    const half = textWidth(d.label ?? "", SMALL, 600) / 2;
    return clamp(x(d.at), half, width - half) - x(d.at);
  });
}
