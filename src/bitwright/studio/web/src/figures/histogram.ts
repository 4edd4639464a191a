// A distribution as a filled outline, the levels a file can store as strokes, and the error each part adds as bars below.
import { max } from "d3-array";
import { scaleLinear, scalePow, scaleSymlog } from "d3-scale";
import { at, axisX, colour, layer, SMALL, stage, textWidth, widthOf, type Scale } from "./svg";
import type { Histogram, Tone } from "./types";

const ERRORS = 56;
const LINE = 20;
const SPACE = 24;
/** Below this share of the room that strokes want, they are `RUG` px short. */
const CROWDED = 0.55;
const RUG = 22;
/** More strokes than this do not move one by one. */
const MANY = 48;

const HEIGHTS: Record<string, () => Scale> = { sqrt: () => scalePow().exponent(0.5), linear: () => scaleLinear(), log: () => scaleSymlog() };
const NOTES: Record<string, string> = { sqrt: "heights on a square-root scale", linear: "", log: "heights on a log scale" };

/** A step outline through `counts` in equal bins: always the same number of corners, so that it morphs. */
function outline(counts: number[], x: (i: number) => number, y: (v: number) => number, floor: number): string {
  const corners = counts.map((c, i) => `L${x(i).toFixed(1)},${y(c).toFixed(1)}L${x(i + 1).toFixed(1)},${y(c).toFixed(1)}`).join("");
  return `M${x(0).toFixed(1)},${floor}${corners}L${x(counts.length).toFixed(1)},${floor}`;
}

export function draw(host: HTMLElement, view: Histogram): void {
  const width = widthOf(host);
  const errors = view.errors ?? [];
  const levels = view.levels ?? [];
  const labels = view.labels ?? ["original weights", "levels the file can store", "where the squared error comes from"];

  // The names of what is drawn, in as many lines as they need.
  const named: [string, Tone | "note"][] = [[labels[0] ?? "", "float"]];
  if (levels.length || view.second) named.push([labels[1] ?? "", "quant"]);
  if (NOTES[view.scale ?? "sqrt"]) named.push([NOTES[view.scale ?? "sqrt"]!, "note"]);
  let line = 0;
  let end = 0;
  const places = named.map(([text, tone]) => {
    const size = tone === "note" ? textWidth(text, SMALL, 400) : textWidth(text, 13, 600);
    if (end > 0 && end + size > width) [line, end] = [line + 1, 0];
    // The note stands at the right where it has a line with others.
    const x = tone === "note" && end > 0 ? width - size : end;
    end += size + SPACE;
    return { text, tone, x, y: 14 + line * LINE };
  });

  const ceiling = 14 + line * LINE + 12;
  const tall = Math.round(Math.min(300, Math.max(200, width * 0.26)));
  const floor = ceiling + tall;
  const under = floor + 48;
  const svg = stage(host, width, under + (errors.length ? ERRORS + 30 : 0));
  const x = scaleLinear([view.low, view.high], [1, width - 1]);
  const n = view.counts.length;
  const edge = (i: number): number => x(view.low + ((view.high - view.low) * i) / n);
  const top = Math.max(max(view.counts) ?? 1, max(view.second ?? []) ?? 0, 1);
  const y = HEIGHTS[view.scale ?? "sqrt"]!().domain([0, top]).range([floor, ceiling + 8]);

  const outside = view.clip ? [[view.low, view.clip[0]], [view.clip[1], view.high]] : [];
  layer(svg, "clip").selectAll("rect").data(outside).join("rect").attr("class", "clipped").attr("y", ceiling).attr("height", tall).attr("width", width)
    .style("clip-path", "none").style("transform-origin", "0 0")
    .style("transform", ([a, b]) => `translateX(${Math.max(0, x(a!))}px) scaleX(${Math.max(0, Math.min(width, x(b!)) - Math.max(0, x(a!))) / width})`);
  axisX(layer(svg, "axis"), x, floor, ceiling, view.x ?? "weight", width);

  const areas: [number[], Tone][] = view.second ? [[view.counts, "float"], [view.second, "quant"]] : [[view.counts, "float"]];
  layer(svg, "areas").selectAll("path").data(areas).join("path").attr("class", ([, tone]) => `area area-${tone}`)
    .style("stroke", ([, tone]) => colour(tone)).style("fill", ([, tone]) => (tone === "float" ? colour(tone) : "none"))
    .attr("d", ([counts]) => outline(counts, edge, (c) => y(c), floor));

  // Many levels lie closer than their strokes are wide: they thin out, and at last stand as a rug, rather than hide what is below.
  const crowd = Math.min(1, width / (levels.length * 9 || 1));
  const strokes = levels.map((v, i) => ({ v, key: i - (levels.length >> 1) })).filter(({ v }) => v >= view.low && v <= view.high);
  const start = crowd < CROWDED ? floor - RUG : ceiling + 4;
  const group = layer(svg, "levels").style("stroke-width", Math.max(1, 3 * crowd)).style("opacity", 0.35 + 0.65 * crowd);
  // Few levels move, each as itself; many are one path, which is drawn within a frame.
  const many = strokes.length > MANY;
  group.selectAll<SVGLineElement, (typeof strokes)[0]>("line").data(many ? [] : strokes, (d) => d.key).join("line")
    .attr("class", "level").attr("y1", start).attr("y2", floor + 1).style("transform", ({ v }) => at(x(v), 0));
  group.selectAll("path").data(many ? [strokes] : []).join("path").attr("class", "level")
    .attr("d", (all) => all.map(({ v }) => `M${x(v).toFixed(1)},${start}V${floor + 1}`).join(""));

  const worst = max(errors) || 1;
  const base = under + 26 + ERRORS;
  const broad = Math.max(1, edge(1) - edge(0) - 1).toFixed(1);
  layer(svg, "errors").selectAll("path").data(errors.length ? [errors] : []).join("path").attr("class", "error")
    .attr("d", (all) => all.map((e, i) => `M${(edge(i) + 0.5).toFixed(1)},${base}V${(base - (e / worst) * ERRORS).toFixed(1)}h${broad}V${base}Z`).join(""));

  const texts = layer(svg, "labels");
  texts.selectAll("text.direct").data([...places.filter((p) => p.tone !== "note"), ...(errors.length ? [{ text: labels[2] ?? "", tone: "error" as Tone, x: 0, y: under + 14 }] : [])])
    .join("text").attr("class", "direct").style("transform", (d) => at(d.x, d.y)).style("fill", (d) => colour(d.tone as Tone)).text((d) => d.text);
  texts.selectAll("text.tick").data(places.filter((p) => p.tone === "note")).join("text").attr("class", "tick")
    .style("transform", (d) => at(d.x, d.y)).text((d) => d.text);
}
