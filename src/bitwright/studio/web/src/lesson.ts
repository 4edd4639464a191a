// A lesson being read: where the reader is, in the table of contents and in the studio's memory.
import { find, post } from "./page";

/** Quiet time before the place is remembered. */
const REST = 1200;

export function startLesson(article: HTMLElement): void {
  const slug = article.dataset["lesson"]!;
  const heads = [...article.querySelectorAll<HTMLElement>(".prose h2[id]")];
  let section = "";
  let waiting = 0;
  const remember = (): void => void post("/api/progress", { slug, section }, true).catch(() => undefined);
  const look = (): void => {
    const above = heads.filter((h) => h.getBoundingClientRect().top < innerHeight * 0.4);
    const now = above.at(-1)?.id ?? "";
    if (now === section) return;
    section = now;
    for (const link of document.querySelectorAll(".contents a")) {
      if (link.getAttribute("href") === `#${now}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    clearTimeout(waiting);
    waiting = window.setTimeout(remember, REST);
  };
  addEventListener("scroll", look, { passive: true });
  remember();
  look();
  find(".resume", article)?.addEventListener("click", () => find(".resume", article)!.remove());
}
