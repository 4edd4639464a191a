// Practice: the list of problems, or one of them with an editor. What a page does not need is not loaded.
const data = document.querySelector("#problem");
if (data) {
  // The text first: it is there already, and the editor is large. A page that is not seen has no frames.
  if (!document.hidden) await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
  const editor = import("./practice/editor");
  const { start } = await import("./practice/problem");
  start(JSON.parse(data.textContent ?? ""), editor);
} else {
  const { start } = await import("./practice/list");
  start();
}

export {};
