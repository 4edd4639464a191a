// A network: boxes with values, arrows whose thickness is their weight. It runs to the right, or down where the boxes would not fit.
import { max } from "d3-array";
import { at, clamp, colour, keep, layer, ROW, SMALL, stage, textWidth, widthOf, wrap, writeLines } from "./svg";
import type { Flow, Link, Node_ } from "./types";

const MOST_BOX = 190;
const HEAD = 8;
const LANE = 22;
/** Least distance in px between boxes side by side. */
const BETWEEN = 12;

interface Laid { node: Node_; u: number; v: number; lines: string[] }
interface Curve { key: string; link: Link; d: string; end: [number, number]; angle: number; middle: [number, number] }
/** `reach` says how far it goes to either side of the flow. */
type Route = Curve & { reach: number[] };
interface Plan { w: number; h: number; laid: Map<string, Laid>; curves: Route[]; end: number; low: number; high: number }

/** The least distance between two different values; 1 where there is only one. */
function closest(values: number[]): number {
  const sorted = [...new Set(values)].sort((a, b) => a - b);
  return sorted.length < 2 ? 1 : Math.min(...sorted.slice(1).map((v, i) => v - sorted[i]!));
}

export function draw(host: HTMLElement, view: Flow): void {
  const width = widthOf(host);
  const { nodes, links } = view;
  const word = Math.max(48, ...nodes.flatMap((n) => [...n.label.split(" ").map((w) => textWidth(w, 13, 600)), textWidth(n.value ?? "", 13, 500, "mono")])) + 22;
  const whole = Math.max(word, ...nodes.map((n) => textWidth(n.label, 13, 600) + 22));
  const tag = max(links, (l) => textWidth(l.label ?? "", SMALL)) ?? 0;

  const share = (of: (n: Node_) => number): number => {
    const values = nodes.map(of);
    const range = Math.max(...values) - Math.min(...values);
    return range ? closest(values) / range : Infinity;
  };
  // The widest box that leaves `gap` px between neighbours across the drawing.
  const widest = (of: (n: Node_) => number, gap: number, width: number): number => {
    const s = share(of);
    return s === Infinity ? width : (width * s - gap) / (1 + s);
  };
  const across = widest((n) => n.column, Math.max(44, tag + 26), width);
  const down = across < word && widest((n) => n.row, BETWEEN, width) > across;
  const laneOf = (link: Link): number => LANE + (down && link.label ? Math.max(0, textWidth(link.label, SMALL) / 2 - 6) : 0);

  // u runs along the flow, v across it.
  const along = nodes.map((n) => n.column);
  const cross = nodes.map((n) => n.row);
  const [u0, v0] = [Math.min(...along), Math.min(...cross)];
  const spread = (values: number[]): number => Math.max(...values) - Math.min(...values);
  const valued = keep(host, width, "valued", Number(nodes.some((n) => n.value)));

  /** Boxes and arrows in `width` px. */
  const lay = (width: number): Plan => {
    const room = down ? widest((n) => n.row, BETWEEN, width) : Math.max(across, Math.min(word, widest((n) => n.column, 30, width)));
    const w = Math.floor(clamp(Math.min(whole, MOST_BOX), 44, room));
    const lines = nodes.map((n) => wrap(n.label, w - 14, 13, 600));
    const h = 20 + (Math.max(...lines.map((l) => l.length)) + valued) * ROW;
    const [hu, hv] = down ? [h / 2, w / 2] : [w / 2, h / 2];
    const du = spread(along) ? (down ? (h + (tag ? 52 : 46)) / closest(along) : Math.min((width - w) / spread(along), (w + 150) / closest(along))) : 0;
    const dv = spread(cross) ? (down ? Math.min((width - w) / spread(cross), (w + 60) / closest(cross)) : (h + (tag ? 34 : 26)) / closest(cross)) : 0;
    const laid = new Map<string, Laid>(nodes.map((node, i) => [node.id, { node, u: hu + (node.column - u0) * du, v: hv + (node.row - v0) * dv, lines: lines[i]! }]));
    const curves = route(links, laid, hu, hv, down, laneOf);
    const reach = curves.flatMap((c) => c.reach);
    return { w, h, laid, curves, end: hu * 2 + spread(along) * du, low: Math.min(0, ...reach) - 2, high: Math.max(hv * 2 + spread(cross) * dv, ...reach) + 2 };
  };
  let plan = lay(width);
  // Lanes beside the boxes need room, too: these then move together.
  if (down && plan.high - plan.low > width) plan = lay(2 * width - (plan.high - plan.low));
  const { w, h, laid, curves, end, low, high } = plan;
  // The drawing stands in the middle of its width.
  const shift = Math.max(0, (width - (down ? high - low : end)) / 2);
  const [sx, sy] = down ? [shift - low, 2] : [shift, 2 - low];
  const svg = stage(host, width, (down ? end : high - low) + 4);
  const place = (u: number, v: number): [number, number] => (down ? [v, u] : [u, v]);

  const arrows = layer(svg, "links").style("transform", at(sx, sy));
  arrows.selectAll<SVGPathElement, Curve>("path.link").data(curves, (c) => c.key).join("path").attr("class", "link")
    .style("stroke", (c) => colour(c.link.tone ?? "mute")).style("stroke-width", (c) => `${1.2 + 6 * (c.link.weight ?? 0.3)}px`).attr("d", (c) => c.d);
  arrows.selectAll<SVGPathElement, Curve>("path.head").data(curves, (c) => c.key).join("path").attr("class", "head").attr("d", (c) => {
    const s = HEAD * (0.8 + 0.6 * (c.link.weight ?? 0.3));
    return `M0,0L${-s},${-s * 0.6}L${-s},${s * 0.6}Z`;
  }).style("fill", (c) => colour(c.link.tone ?? "mute")).style("transform", (c) => `${at(...c.end)} rotate(${c.angle}deg)`);

  const boxes = layer(svg, "nodes").style("transform", at(sx, sy)).selectAll<SVGGElement, Laid>("g.node").data([...laid.values()], (d) => d.node.id).join((enter) => {
    const g = enter.append("g").attr("class", "node");
    g.append("rect").attr("rx", 8);
    g.append("text").attr("class", "node-label").attr("text-anchor", "middle");
    g.append("text").attr("class", "node-value").attr("text-anchor", "middle");
    return g;
  });
  boxes.style("--tone", (d) => (d.node.tone && d.node.tone !== "ink" ? colour(d.node.tone) : "var(--line-strong)")).style("transform", (d) => at(...place(d.u, d.v)));
  boxes.select("rect").attr("x", -w / 2).attr("y", -h / 2).attr("width", w).attr("height", h);
  boxes.select<SVGTextElement>(".node-label").each(function (d) {
    const tall = d.lines.length + (d.node.value ? 1 : 0);
    const first = -((tall - 1) * ROW) / 2 + 4.5;
    this.style.transform = at(0, first);
    writeLines(this, d.lines);
  });
  boxes.select(".node-value").attr("y", (d) => (d.lines.length * ROW) / 2 + 4.5).style("fill", (d) => colour(d.node.tone ?? "ink")).text((d) => d.node.value ?? "");

  const names = curves.filter((c) => c.link.label);
  const plates = layer(svg, "tags").style("transform", at(sx, sy)).selectAll<SVGGElement, Curve>("g").data(names, (c) => c.key).join((enter) => {
    const g = enter.append("g");
    g.append("rect").attr("class", "plate").attr("rx", 4).attr("height", 18).attr("y", -9);
    g.append("text").attr("class", "direct small plain").attr("text-anchor", "middle").attr("y", 4);
    return g;
  });
  plates.style("transform", (c) => at(c.middle[0], c.middle[1]));
  plates.select("rect").attr("width", (c) => textWidth(c.link.label!, SMALL) + 8).attr("x", (c) => -textWidth(c.link.label!, SMALL) / 2 - 4);
  plates.select("text").style("fill", (c) => colour(c.link.tone ?? "mute")).text((c) => c.link.label!);
}

/** A curve for every link, from the side of its source that faces its target; what would cross a box goes around it. */
function route(links: Link[], laid: Map<string, Laid>, hu: number, hv: number, down: boolean, laneOf: (link: Link) => number): Route[] {
  const place = (u: number, v: number): [number, number] => (down ? [v, u] : [u, v]);
  const write = (u: number, v: number): string => place(u, v).map((c) => c.toFixed(1)).join(",");
  const known = links.filter((l) => laid.has(l.source) && laid.has(l.target));
  const forward = (l: Link): boolean => laid.get(l.target)!.u > laid.get(l.source)!.u + hu;
  const blocked = (l: Link): boolean => {
    const [a, b] = [laid.get(l.source)!, laid.get(l.target)!];
    return [...laid.values()].some((n) => n !== a && n !== b && n.u > a.u + 1 && n.u < b.u - 1 && Math.abs(a.v + ((b.v - a.v) * (n.u - a.u)) / (b.u - a.u) - n.v) < hv + 4);
  };
  // Several arrows at one side of a box spread over it in the order of their other ends.
  const port = (link: Link, end: "source" | "target"): number => {
    const other = end === "source" ? "target" : "source";
    const all = known.filter((l) => l[end] === link[end] && forward(l) && !blocked(l)).sort((p, q) => laid.get(p[other])!.v - laid.get(q[other])!.v);
    const i = all.indexOf(link);
    return all.length < 2 ? 0 : (i - (all.length - 1) / 2) * Math.min(16, (hv * 1.5) / all.length);
  };
  const used: [number, number][] = [];
  const lanes: number[] = [];

  /** Out of the side of a box, along a lane that no box stands in, and into the side of the other. */
  function around(link: Link, a: Laid, b: Laid): Route {
    const [from, to] = [Math.min(a.u, b.u) - hu, Math.max(a.u, b.u) + hu];
    const there = [...laid.values()].filter((n) => n.u >= from && n.u <= to);
    const [over, under] = [Math.min(...there.map((n) => n.v)) - hv - laneOf(link), Math.max(...there.map((n) => n.v)) + hv + laneOf(link)];
    const way = Math.abs(2 * over - a.v - b.v) <= Math.abs(2 * under - a.v - b.v) && b.u > a.u ? -1 : 1;
    let lane = way < 0 ? over : under;
    while (lanes.some((l) => Math.abs(l - lane) < LANE - 2)) lane += way * LANE;
    lanes.push(lane);
    const [v, t] = [a.v + way * hv, b.v + way * hv];
    const [along, r] = [Math.sign(b.u - a.u), 12];
    const d = `M${write(a.u, v)}L${write(a.u, lane - way * r)}Q${write(a.u, lane)} ${write(a.u + along * r, lane)}L${write(b.u - along * r, lane)}Q${write(b.u, lane)} ${write(b.u, lane - way * r)}L${write(b.u, t + way * (HEAD - 2))}`;
    const middle = place((a.u + b.u) / 2, lane);
    used.push(middle);
    return { key: `${link.source}-${link.target}`, link, d, end: place(b.u, t), angle: direction(place(b.u, lane), place(b.u, t)), middle, reach: [lane + way * (down && link.label ? textWidth(link.label, SMALL) / 2 + 6 : 12)] };
  }

  return known.map((link) => {
    const [a, b] = [laid.get(link.source)!, laid.get(link.target)!];
    let points: [number, number][];
    if (forward(link) && !blocked(link)) {
      const [u, v, s, t] = [a.u + hu, a.v + port(link, "source"), b.u - hu, b.v + port(link, "target")];
      const m = (u + s) / 2;
      points = [[u, v], [m, v], [m, t], [s, t]];
    } else if (Math.abs(a.u - b.u) <= hu) {
      const way = Math.sign(b.v - a.v) || 1;
      const [v, t] = [a.v + way * hv, b.v - way * hv];
      points = [[a.u, v], [a.u, (v + t) / 2], [b.u, (v + t) / 2], [b.u, t]];
    } else {
      return around(link, a, b);
    }
    const [p0, p1, p2, p3] = points as [[number, number], [number, number], [number, number], [number, number]];
    const angle = direction(place(...p2), place(...p3));
    const [ex, ey] = place(...p3);
    const rad = (angle * Math.PI) / 180;
    const stop: [number, number] = down ? [p3[0] - (HEAD - 2) * Math.sin(rad), p3[1] - (HEAD - 2) * Math.cos(rad)] : [p3[0] - (HEAD - 2) * Math.cos(rad), p3[1] - (HEAD - 2) * Math.sin(rad)];
    // The label stands on the curve where no other one is.
    const on = (t: number): [number, number] => place(...([0, 1].map((k) => (1 - t) ** 3 * p0[k]! + 3 * (1 - t) ** 2 * t * p1[k]! + 3 * (1 - t) * t * t * p2[k]! + t ** 3 * p3[k]!) as [number, number]));
    let middle = on(0.5);
    if (link.label) {
      const half = textWidth(link.label, SMALL) / 2;
      middle = [0.5, 0.38, 0.62, 0.28, 0.72].map(on).find(([x, y]) => used.every(([p, q]) => Math.abs(p - x) > half * 2 || Math.abs(q - y) > 15)) ?? middle;
      used.push(middle);
    }
    const swing = (p0[1] + 3 * p1[1] + 3 * p2[1] + p3[1]) / 8;
    return { key: `${link.source}-${link.target}`, link, d: `M${write(...p0)}C${write(...p1)} ${write(...p2)} ${write(...stop)}`, end: [ex, ey], angle, middle, reach: [swing, ...(down && link.label ? [middle[0] - textWidth(link.label, SMALL) / 2 - 4, middle[0] + textWidth(link.label, SMALL) / 2 + 4] : [])] };
  });
}

/** The angle in degrees of the way from `a` to `b`. */
const direction = (a: [number, number], b: [number, number]): number => (Math.atan2(b[1] - a[1], b[0] - a[0]) * 180) / Math.PI;
