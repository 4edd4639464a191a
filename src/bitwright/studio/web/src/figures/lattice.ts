// The plane of two weights: codes as points, the float weights as a handle to drag, the cell of all weights that get the same code, an ellipse of equal output error.
import { scaleLinear } from "d3-scale";
import { pointer } from "d3-selection";
import { at, axisX, axisY, clamp, colour, layer, ROW, short, SMALL, stage, textWidth, widthOf, wrap, writeLines } from "./svg";
import type { Lattice, Pick, Spot } from "./types";

/** What is shown of either axis, in steps from 0, and the most px per step. */
const REACH = [2.6, 1.9] as const;
const LARGEST = 118;
const LEFT = 30;
const CODES = 3;
const RING = 8;
const APART = 4;
/** Where a name may stand above or below its code, in px, the first place first. */
const ROOM = [-24, 36, -42, 54];

interface Plane { toSpot: (x: number, y: number) => Spot }
const planes = new WeakMap<HTMLElement, Plane>();

/** Tell the figure's sliders `x` and `y` where the handle is dragged to. */
function listen(host: HTMLElement, svg: SVGSVGElement): void {
  const figure = host.closest("bw-figure");
  const take = (event: PointerEvent): void => {
    const [x, y] = planes.get(host)!.toSpot(...pointer(event, svg));
    host.dispatchEvent(new CustomEvent("take", { detail: { x, y } }));
  };
  svg.addEventListener("pointerdown", (event) => {
    // A finger beside the handle scrolls the page.
    if (event.pointerType !== "mouse" && !(event.target as Element).closest(".handle")) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    figure?.setAttribute("data-dragging", "");
    take(event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (svg.hasPointerCapture(event.pointerId)) take(event);
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => figure?.removeAttribute("data-dragging"));
}

export function draw(host: HTMLElement, view: Lattice): void {
  const width = widthOf(host);
  const unit = Math.min(LARGEST, (width - LEFT - 8) / (2 * REACH[0]));
  const [wide, tall] = [2 * REACH[0] * unit, 2 * REACH[1] * unit];
  const left = Math.max(LEFT, (width - wide) / 2);
  const title = wrap(view.y, width);
  const top = 12 + title.length * ROW;
  const x = scaleLinear([-REACH[0], REACH[0]], [left, left + wide]);
  const y = scaleLinear([-REACH[1], REACH[1]], [top + tall, top]);
  const place = ([p, q]: Spot): Spot => [x(p), y(q)];
  const line = (spots: Spot[], close = ""): string => `M${spots.map((s) => place(s).map((v) => v.toFixed(1)).join(",")).join("L")}${close}`;

  const fresh = !planes.has(host);
  planes.set(host, { toSpot: (px, py) => [x.invert(px), y.invert(py)] });
  const svg = stage(host, width, top + tall + 46);
  if (fresh) listen(host, svg.node()!);
  axisY(layer(svg, "axis-y"), y, left, left + wide, [-1, 0, 1], short);
  stage(host, width, top + tall + 46 + axisX(layer(svg, "axis-x"), x, top + tall, top, view.x, width, [-2, -1, 0, 1, 2]));
  layer(svg, "title").selectAll("text").data([title]).join("text").attr("class", "axis").style("transform", at(left - 10, 13)).each(function (d) {
    writeLines(this as SVGTextElement, d);
  });

  // Nothing is drawn beyond the plane.
  let clip = svg.select<SVGClipPathElement>(":scope > clipPath");
  if (clip.empty()) {
    clip = svg.append("clipPath").attr("id", `plane-${crypto.randomUUID()}`) as never;
    clip.append("rect");
  }
  clip.select("rect").attr("x", left).attr("y", top).attr("width", wide).attr("height", tall);
  const plane = layer(svg, "plane").attr("clip-path", `url(#${clip.attr("id")})`) as never as ReturnType<typeof layer>;

  const owner = view.picks.find((pick) => pick.id === view.owner)!;
  const codes: Spot[] = [];
  for (let i = -CODES; i <= CODES; i++) for (let j = -CODES + 1; j < CODES; j++) codes.push([i, j]);
  const cell = ([p, q]: Spot): string => line(view.cell.map(([u, v]): Spot => [p + u, q + v]), "Z");
  layer(plane as never, "cells").selectAll<SVGPathElement, Spot>("path").data(codes).join("path").attr("class", "cell").attr("d", cell);
  layer(plane as never, "own").selectAll<SVGPathElement, Pick>("path").data([owner]).join("path").attr("class", "cell own").style("--tone", colour(owner.tone)).attr("d", (pick) => cell(pick.at));

  // Weights of the same output error as the code that the cell belongs to: with M = L L^T, those at L^-T (cos, sin) times its root.
  const [a, b, c] = view.metric;
  const [p, q] = [owner.at[0] - view.at[0], owner.at[1] - view.at[1]];
  const size = Math.sqrt(Math.max(0, a * p * p + 2 * b * p * q + c * q * q));
  const [l, m] = [Math.sqrt(a), b / Math.sqrt(a)];
  const n = Math.sqrt(c - m * m);
  const turn = Array.from({ length: 72 }, (_, k): Spot => {
    const v = Math.sin((k * Math.PI) / 36) / n;
    return [view.at[0] + (size * (Math.cos((k * Math.PI) / 36) - m * v)) / l, view.at[1] + size * v];
  });
  layer(plane as never, "equal").selectAll("path").data([turn]).join("path").attr("class", "equal").attr("d", (d) => line(d, "Z"));
  layer(plane as never, "ways").selectAll("path").data([view.path]).join("path").attr("class", "way").style("--tone", colour("quant")).attr("d", (d) => line(d));
  layer(plane as never, "codes").selectAll<SVGCircleElement, Spot>("circle").data(codes).join("circle").attr("r", 3.5).style("fill", colour("quant")).style("transform", (s) => at(...place(s)));

  // Rings around the codes that are taken, one in another, and their names.
  const taken = new Map<string, Pick[]>();
  for (const pick of view.picks) taken.set(pick.at.join(), [...(taken.get(pick.at.join()) ?? []), pick]);
  const rings = [...taken.values()].flatMap((picks) => picks.map((pick, k) => ({ pick, r: RING + k * APART })));
  layer(svg, "rings").selectAll<SVGCircleElement, (typeof rings)[0]>("circle").data(rings, (d) => d.pick.id).join("circle").attr("class", "ring")
    .style("--tone", (d) => colour(d.pick.tone)).style("r", (d) => `${d.r}px`).style("transform", (d) => at(...place(d.pick.at)));
  const [hx, hy] = place(view.at);
  const boxes = [{ left: hx - 12, right: hx + 12, y: hy + 4 }];
  const names = [...taken.values()].map((picks) => {
    const text = picks.map((pick) => pick.id).join(", ");
    const half = textWidth(text, SMALL, 600) / 2;
    const [px, py] = place(picks[0]!.at);
    const middle = clamp(px, left + half + 2, left + wide - half - 2);
    const free = (d: number): boolean => boxes.every((box) => middle + half + 6 < box.left || middle - half - 6 > box.right || Math.abs(py + d - box.y) > 17);
    const within = (d: number): boolean => py + d > top + 12 && py + d < top + tall - 4;
    const d = ROOM.find((d) => free(d) && within(d)) ?? ROOM[0]!;
    boxes.push({ left: middle - half, right: middle + half, y: py + d });
    return { key: picks[0]!.id, text, x: middle, y: py + d, tone: picks.length > 1 ? "ink" as const : picks[0]!.tone };
  });
  layer(svg, "names").selectAll<SVGTextElement, (typeof names)[0]>("text").data(names, (d) => d.key).join("text").attr("class", "direct small").attr("text-anchor", "middle")
    .style("fill", (d) => colour(d.tone)).style("transform", (d) => at(d.x, d.y)).text((d) => d.text);

  const handle = layer(svg, "grip").selectAll<SVGGElement, Spot>("g.handle").data([view.at]).join((enter) => {
    const g = enter.append("g").attr("class", "handle");
    g.append("circle").attr("class", "reach").attr("r", 22);
    g.append("circle").attr("class", "knob").attr("r", 8);
    return g;
  });
  handle.style("transform", (d) => at(...place(d)));
}
