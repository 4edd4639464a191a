/** Whether nothing may move by itself: the system says so, or the learner's settings. */
export const still = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches || document.documentElement.dataset["motion"] === "reduced";
