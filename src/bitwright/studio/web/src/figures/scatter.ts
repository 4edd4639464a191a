// Two measures against each other, or curves: points by shape and colour, names beside them, fronts as steps; a cursor reads any point.
import { scaleLinear, scaleLog } from "d3-scale";
import { line, symbol, symbolCircle, symbolDiamond, symbolSquare, symbolTriangle, type SymbolType } from "d3-shape";
import { at, axisX, axisY, clamp, colour, decades, keep, layer, named, ROW, short, SMALL, stage, textWidth, ticked, widthOf, wrap, writeLines, type Scale } from "./svg";
import { reader } from "./reader";
import type { Axis, Point, Scatter, Series, Shape, Tone } from "./types";

const SYMBOLS: Record<Shape, SymbolType> = { circle: symbolCircle, square: symbolSquare, triangle: symbolTriangle, diamond: symbolDiamond };
const AREA = 62;
const FINE = 30;
/** More points of a line than this are drawn as the line alone. */
const MANY = 28;
const NEAR = 36;
const APART = 7;
const BOTTOM = 46;
const HINT = "Point, or use the arrow keys, to read a value.";

interface Box { x: number; y: number; w: number; h: number; of?: Series | undefined }
interface Place { key: string; point: Point; series: Series; x: number; y: number; beaten: boolean }
interface Label { key: string; text: string; series: Series; name: boolean; x: number; y: number; shape?: boolean }

const cursors = new WeakMap<HTMLElement, string>();

const scaleOf = (axis: Axis, range: [number, number]): Scale => (axis.log ? scaleLog() : scaleLinear()).domain([axis.low, axis.high]).range(range) as Scale;
const common = (a: Box, b: Box): number => Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

/** The points that no other of the series beats on both axes, less being better, from left to right. */
export function front(points: Point[]): Point[] {
  let least = Infinity;
  return [...points].sort((a, b) => a.x - b.x || a.y - b.y).filter((p) => p.y < least && ((least = p.y), true));
}

/** Places around a point where a label of w x h may stand, the best first. */
function around(x: number, y: number, w: number, h: number): Box[] {
  const found: Box[] = [];
  for (const d of [9, 20]) {
    const [right, leftward, up, down] = [x + d, x - d - w, y - d - h + 2, y + d - 2];
    for (const [bx, by] of [[right, y - h / 2], [x - w / 2, up], [x - w / 2, down], [leftward, y - h / 2], [right - 4, up + 3], [right - 4, down - 3], [leftward + 4, up + 3], [leftward + 4, down - 3]] as const) found.push({ x: bx, y: by, w, h });
  }
  return found;
}

export function draw(host: HTMLElement, view: Scatter): void {
  const width = widthOf(host);
  const { x: ax, y: ay } = view;
  const tall = Math.round(clamp(width * 0.42, 250, 400));
  const yTicks = ay.log ? decades(ay.low, ay.high) : scaleOf(ay, [tall, 0]).ticks(Math.max(2, Math.floor(tall / 56)));
  const yWrite = ticked(yTicks, ay.log);
  const left = keep(host, width, "left", Math.max(...yTicks.map((t) => textWidth(yWrite.write(t), SMALL, 400))) + 14);
  const ends = view.series.filter((s) => s.line && s.points.length > 1).map((s) => textWidth(s.name, 13, 600));
  const right = keep(host, width, "right", width >= 640 && ends.length ? Math.min(190, Math.max(...ends)) + 16 : 12);

  // Everything is placed in a frame whose plot begins at 0; the head above it grows with names that found no place in it.
  const x = scaleOf(ax, [left, width - right]);
  const y = scaleOf(ay, [tall, 0]);
  const inside = (p: Point): boolean => p.x >= ax.low - 1e-9 && p.x <= ax.high * (1 + 1e-9) + 1e-9 && p.y >= ay.low * (1 - 1e-9) - (ay.log ? 0 : 1e-9) && p.y <= ay.high * (1 + 1e-9);
  const counts = new Map<string, number>();
  // One front over all series that have one: what none of their points beats.
  const fronted = view.series.filter((s) => s.front);
  const edge = front(fronted.flatMap((s) => s.points).filter(inside));
  const best = new Set(edge);
  const places: Place[] = view.series.flatMap((series) => {
    return series.points.filter(inside).map((point) => {
      const again = counts.get(point.id) ?? 0;
      counts.set(point.id, again + 1);
      return { key: again ? `${point.id}#${again}` : point.id, point, series, x: x(point.x), y: y(point.y), beaten: Boolean(series.front) && !best.has(point) };
    });
  });
  const { labels, homeless } = label(view.series, places, edge, { left, width, tall, right, x, y });

  // Names without a place stand in the head, each with its shape.
  const lines: { series: Series; x: number; row: number }[] = [];
  let end = 0;
  let row = 0;
  for (const series of homeless) {
    const w = textWidth(series.name, 13, 600) + 20;
    if (end && end + w > width) [end, row] = [0, row + 1];
    lines.push({ series, x: end, row });
    end += w + 18;
  }
  const yName = named(ay.label, ay.unit, ay.log) + yWrite.unit;
  const heads = keep(host, width, "heads", homeless.length ? row + 1 : 0);
  const title = wrap(yName, width);
  const above = 28 + (title.length - 1) * ROW;
  const top = above + heads * 22;

  const pick = (key: string | undefined): void => {
    if (key === undefined) cursors.delete(host);
    else cursors.set(host, key);
    show();
  };
  const order = [...places].sort((a, b) => a.x - b.x || a.y - b.y);
  const { box, line: told } = reader(host, "Points", {
    near(px, py) {
      let best: Place | undefined;
      let least = NEAR ** 2;
      for (const p of places) {
        const d = (p.x - px) ** 2 + (p.y + top - py) ** 2;
        if (d < least) [best, least] = [p, d];
      }
      pick(best?.key);
    },
    step(dx, dy) {
      const now = places.find((p) => p.key === cursors.get(host));
      if (!now) return pick(order[0]?.key);
      if (dx) return pick(order[clamp(order.indexOf(now) + dx, 0, order.length - 1)]!.key);
      // Up and down: the nearest point of another series in that direction.
      const others = places.filter((p) => p.series !== now.series && (p.y - now.y) * dy > 0);
      const nearest = others.sort((a, b) => Math.hypot((a.x - now.x) * 3, a.y - now.y) - Math.hypot((b.x - now.x) * 3, b.y - now.y))[0];
      if (nearest) pick(nearest.key);
    },
    none: () => pick(undefined),
  });

  const svg = stage(box, width, top + tall + BOTTOM);
  const xTicks = ax.log ? decades(ax.low, ax.high, Math.max(2, Math.floor((width - left - right) / 60))) : undefined;
  const shifted = (ay.log ? scaleLog() : scaleLinear()).domain([ay.low, ay.high]).range([top + tall, top]) as Scale;
  axisY(layer(svg, "axis-y"), shifted, left, width - right, yTicks, yWrite.write);
  stage(box, width, top + tall + BOTTOM + axisX(layer(svg, "axis-x"), x, top + tall, top, named(ax.label, ax.unit, ax.log), width, xTicks));
  layer(svg, "title").selectAll("text").data([title]).join("text").attr("class", "axis").style("transform", at(0, 13)).each(function (d) {
    writeLines(this as SVGTextElement, d);
  });
  const keyed = layer(svg, "head").selectAll<SVGGElement, (typeof lines)[0]>("g").data(lines, (d) => d.series.name).join((enter) => {
    const g = enter.append("g");
    g.append("path");
    g.append("text").attr("class", "direct").attr("x", 18).attr("y", 4.5);
    return g;
  });
  keyed.style("transform", (d) => at(d.x, above + 6 + d.row * 22));
  keyed.select("path").attr("d", (d) => symbol(SYMBOLS[d.series.shape ?? "circle"], AREA)()).attr("transform", "translate(6,0)").style("fill", (d) => colour(d.series.tone ?? "quant"));
  keyed.select("text").style("fill", (d) => colour(d.series.tone ?? "quant")).text((d) => d.series.name);

  const plot = layer(svg, "plot").style("transform", at(0, top));
  const clip = clipTo(svg, left, top, width - left - right, tall);
  const path = line<Point>((p) => x(p.x), (p) => y(p.y));
  const curves = layer(svg, "curves").attr("clip-path", `url(#${clip})`);
  const drawn: { key: string; kind: string; tone: Tone; d: string }[] = view.series.flatMap((s) => [
    ...(s.line ? [{ key: s.name, kind: "curve", tone: s.tone ?? "quant", d: path(s.points) ?? "" }] : []),
  ]);
  if (edge.length) drawn.push({ key: "/front", kind: "front", tone: fronted.length > 1 ? "ink" : (fronted[0]!.tone ?? "quant"), d: steps(edge, x, y, width - right) });
  curves.selectAll<SVGPathElement, (typeof drawn)[0]>("path").data(drawn, (d) => d.key).join("path").attr("class", (d) => d.kind).style("stroke", (d) => colour(d.tone))
    .style("transform", at(0, top)).attr("d", (d) => d.d);

  const fine = new Set(view.series.filter((s) => s.line && !s.front).map((s) => s.name));
  const shown = places.filter((p) => !(fine.has(p.series.name) && p.series.points.length > MANY && !p.point.label));
  layer(plot as never, "points").selectAll<SVGPathElement, Place>("path").data(shown, (p) => p.key).join("path").attr("class", (p) => (p.beaten ? "point beaten" : "point"))
    .style("--tone", (p) => colour(p.series.tone ?? "quant")).attr("d", (p) => symbol(SYMBOLS[p.series.shape ?? "circle"], p.series.points.length > MANY || fine.has(p.series.name) ? Math.max(FINE, AREA - p.series.points.length) : AREA)())
    .style("transform", (p) => at(p.x, p.y));
  layer(plot as never, "labels").selectAll<SVGTextElement, Label>("text").data(labels, (l) => l.key).join("text").attr("class", (l) => (l.name ? "direct" : "direct small plain"))
    .style("fill", (l) => colour(l.series.tone ?? "quant")).style("transform", (l) => at(l.x, l.y)).text((l) => l.text);

  const several = view.series.length > 1;
  const show = (): void => {
    const now = places.find((p) => p.key === cursors.get(host));
    layer(plot as never, "cursor").selectAll("circle").data(now ? [now] : []).join("circle").attr("class", "cursor").attr("r", 9).style("transform", (p) => at(p.x, p.y));
    told.textContent = now ? [several || !now.point.label ? now.series.name : "", now.point.label].filter(Boolean).join(", ") + `: ${read(ax, now.point.x)}; ${read(ay, now.point.y)}` : HINT;
  };
  show();
}

const read = (axis: Axis, v: number): string => `${axis.label} ${short(v)}${axis.unit ? ` ${axis.unit}` : ""}`;

/** A step line through a front: at each x the least y reached so far, on to the right edge. */
function steps(points: Point[], x: Scale, y: Scale, right: number): string {
  return points.map((p, i) => (i ? `H${x(p.x).toFixed(1)}V${y(p.y).toFixed(1)}` : `M${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`)).join("") + (points.length ? `H${right}` : "");
}

let clips = 0;
/** A clip path for the plot's rectangle, made once; its id. */
function clipTo(svg: ReturnType<typeof stage>, x: number, y: number, w: number, h: number): string {
  let path = svg.select<SVGClipPathElement>(":scope > clipPath");
  if (path.empty()) {
    path = svg.append("clipPath").attr("id", `plot-${++clips}`) as never;
    path.append("rect");
  }
  path.select("rect").attr("x", x).attr("y", y - 3).attr("width", w).attr("height", h + 6);
  return path.attr("id");
}

const pairs = <T>(list: T[]): [T, T][] => list.slice(1).map((item, i) => [list[i]!, item]);

/** Fill the way from one place to another with small boxes. */
function trace(filled: Box[], of: Series | undefined, [x0, y0]: [number, number], [x1, y1]: [number, number]): void {
  const n = Math.min(80, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / 7));
  for (let k = 0; k <= n; k++) filled.push({ x: x0 + ((x1 - x0) * k) / (n || 1) - 2, y: y0 + ((y1 - y0) * k) / (n || 1) - 2, w: 4, h: 4, of });
}

interface Frame { left: number; width: number; tall: number; right: number; x: Scale; y: Scale }

/** Where names of series and labels of points stand so that nothing is covered; `homeless` are the series whose name found no place. */
function label(all: Series[], places: Place[], edge: Point[], { left, width, tall, right, x, y }: Frame): { labels: Label[]; homeless: Series[] } {
  const filled: Box[] = places.map((p) => ({ x: p.x - 5, y: p.y - 5, w: 10, h: 10, of: p.series }));
  for (const s of all) {
    const corners: [number, number][] = s.line ? s.points.map((p) => [x(p.x), y(p.y)]) : [];
    for (const [from, to] of pairs(corners)) trace(filled, s, from, to);
  }
  const corners = edge.map((p): [number, number] => [x(p.x), y(p.y)]);
  if (corners.length) corners.push([width - right, corners.at(-1)![1]]);
  for (const [[x0, y0], [x1, y1]] of pairs(corners)) {
    trace(filled, undefined, [x0, y0], [x1, y0]);
    trace(filled, undefined, [x1, y0], [x1, y1]);
  }
  const within = (b: Box): boolean => b.x >= left - 4 && b.x + b.w <= width && b.y >= -12 && b.y + b.h <= tall - 1;
  // A name keeps a distance from what belongs to others, so that it is not taken for theirs.
  const covered = (b: Box, own: Series, name: boolean): number => {
    const far = { x: b.x - APART, y: b.y - APART, w: b.w + 2 * APART, h: b.h + 2 * APART };
    return filled.reduce((sum, f) => sum + common(name && f.of && f.of !== own ? far : b, f), 0);
  };
  const labels: Label[] = [];
  const homeless: Series[] = [];
  const settle = (key: string, text: string, series: Series, name: boolean, spots: Box[], bear: number): boolean => {
    let best: Box | undefined;
    let least = Infinity;
    for (const spot of spots) {
      if (!within(spot)) continue;
      const cost = covered(spot, series, name);
      if (cost < least) [best, least] = [spot, cost];
      if (cost === 0) break;
    }
    if (!best || least > bear) return false;
    filled.push({ x: best.x - 2, y: best.y - 1, w: best.w + 4, h: best.h + 2 });
    labels.push({ key, text, series, name, x: best.x, y: best.y + best.h - 4 });
    return true;
  };
  for (const series of all) {
    const mine = places.filter((p) => p.series === series);
    if (!mine.length) continue;
    const alone = mine.length === 1 && mine[0]!.point.label;
    const text = alone && alone !== series.name ? `${series.name}, ${alone}` : series.name;
    const w = textWidth(text, 13, 600);
    const ordered = [...mine].sort((a, b) => b.x - a.x);
    // A line is named at its right end, then its left one; a cloud at its outermost points.
    const high = [...mine].sort((a, b) => a.y - b.y);
    const spread = [ordered[0]!, ordered.at(-1)!, high[0]!, high.at(-1)!, ...ordered.filter((_, i) => i % Math.ceil(ordered.length / 12) === 0)];
    const spots = spread.flatMap((p) => around(p.x, p.y, w, 16));
    if (series.line && right > 12) spots.unshift({ x: width - right + 8 > ordered[0]!.x ? ordered[0]!.x + 10 : ordered[0]!.x, y: ordered[0]!.y - 8, w, h: 16 });
    if (settle(`name/${series.name}`, text, series, true, spots, 0)) continue;
    homeless.push(alone ? { ...series, name: text } : series);
  }
  for (const p of places) {
    if (!p.point.label || (p.series.points.length === 1)) continue;
    settle(`label/${p.key}`, p.point.label, p.series, false, around(p.x, p.y, textWidth(p.point.label, SMALL, 500), 15), 6);
  }
  return { labels, homeless };
}
