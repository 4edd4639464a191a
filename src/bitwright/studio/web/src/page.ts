// Small things every script of a page needs.

/** The first element that matches, or undefined. */
export const find = <T extends Element = HTMLElement>(selector: string, root: ParentNode = document): T | undefined => root.querySelector<T>(selector) ?? undefined;

/** Post JSON to this studio; a failure is the caller's to show, or to leave. */
export async function post(path: string, body: unknown, keepalive = false): Promise<Response> {
  return fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), keepalive });
}

/** Whether a key press belongs to a field rather than to the page. */
export const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName) && (target as HTMLInputElement).type !== "range" && (target as HTMLInputElement).type !== "radio");
