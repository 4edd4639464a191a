// A distribution as a filled outline, the levels a file can store as strokes, and the error each part adds as bars below.
import { max } from "d3-array";
import { scaleLinear, scalePow, scaleSymlog } from "d3-scale";
import { axisX, colour, layer, stage, widthOf, type Scale } from "./svg";
import type { Histogram, Tone } from "./types";

const TOP = 34;
const ERRORS = 56;

const HEIGHTS: Record<string, () => Scale> = { sqrt: () => scalePow().exponent(0.5), linear: () => scaleLinear(), log: () => scaleSymlog() };

/** A step outline through `counts` in equal bins: always the same number of corners, so that it morphs. */
function outline(counts: number[], x: (i: number) => number, y: (v: number) => number, floor: number): string {
  const corners = counts.map((c, i) => `L${x(i)},${y(c)}L${x(i + 1)},${y(c)}`).join("");
  return `M${x(0)},${floor}${corners}L${x(counts.length)},${floor}`;
}

export function draw(host: HTMLElement, view: Histogram): void {
  const width = widthOf(host);
  const tall = Math.round(Math.min(300, Math.max(200, width * 0.26)));
  const floor = TOP + tall;
  const errors = view.errors ?? [];
  const height = floor + 48 + (errors.length ? ERRORS + 30 : 0);
  const svg = stage(host, width, height);
  const x = scaleLinear([view.low, view.high], [1, width - 1]);
  const n = view.counts.length;
  const edge = (i: number) => x(view.low + ((view.high - view.low) * i) / n);
  const top = Math.max(max(view.counts) ?? 1, max(view.second ?? []) ?? 0, 1);
  const y = HEIGHTS[view.scale ?? "sqrt"]!().domain([0, top]).range([floor, TOP + 8]);
  const labels = view.labels ?? ["original weights", "levels the file can store", "where the squared error comes from"];

  const outside = view.clip ? [[view.low, view.clip[0]], [view.clip[1], view.high]] : [];
  layer(svg, "clip").selectAll("rect").data(outside).join("rect")
    .attr("class", "clipped").attr("y", TOP).attr("height", tall)
    .attr("x", ([a]) => x(Math.max(view.low, a!))).attr("width", ([a, b]) => Math.max(0, x(b!) - x(Math.max(view.low, a!))));
  axisX(layer(svg, "axis"), x, floor, TOP, view.x ?? "weight");

  const areas: [number[], Tone][] = view.second ? [[view.counts, "float"], [view.second, "quant"]] : [[view.counts, "float"]];
  layer(svg, "areas").selectAll("path").data(areas).join("path").attr("class", ([, tone]) => `area area-${tone}`)
    .style("stroke", ([, tone]) => colour(tone)).style("fill", ([, tone]) => (tone === "float" ? colour(tone) : "none"))
    .style("d", ([counts]) => `path("${outline(counts, edge, (c) => y(c), floor)}")`)
    .attr("d", ([counts]) => outline(counts, edge, (c) => y(c), floor));

  // Many levels lie closer than their strokes are wide: let them thin out rather than hide what is below.
  const levels = view.levels ?? [];
  const crowd = Math.min(1, width / (levels.length * 9 || 1));
  layer(svg, "levels").selectAll("line").data(levels.filter((v) => v >= view.low && v <= view.high)).join("line")
    .attr("class", "level").attr("y1", TOP + 4).attr("y2", floor + 1).attr("x1", 0).attr("x2", 0)
    .style("transform", (v) => `translateX(${x(v)}px)`).style("stroke-width", Math.max(1, 3 * crowd)).style("opacity", 0.35 + 0.65 * crowd);

  const worst = max(errors) || 1;
  const base = floor + 48 + 26 + ERRORS;
  layer(svg, "errors").selectAll("rect").data(errors).join("rect").attr("class", "error")
    .attr("x", (_, i) => edge(i) + 0.5).attr("width", Math.max(1, edge(1) - edge(0) - 1)).attr("y", base - ERRORS).attr("height", ERRORS)
    .style("transform-origin", `0 ${base}px`).style("transform", (e) => `scaleY(${e / worst})`);

  const second: Tone = "quant";
  const named: [string, number, Tone][] = [[labels[0] ?? "", 16, "float"]];
  if (levels.length || view.second) named.push([labels[1] ?? "", 16, second]);
  if (errors.length) named.push([labels[2] ?? "", floor + 62, "error"]);
  const gap = Math.min(width / 2, 24 + 7.6 * (labels[0] ?? "").length);
  layer(svg, "labels").selectAll("text").data(named).join("text").attr("class", "direct")
    .attr("x", (_, i) => (i === 1 && named[1]![2] === second ? gap : 0)).attr("y", ([, at]) => at)
    .style("fill", ([, , tone]) => colour(tone)).text(([text]) => text);
}
