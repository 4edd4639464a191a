// Every page's script: figures, questions, keyboard.
import "./elements/figure";
import "./elements/question";
import "./elements/wait";
import { startLesson } from "./lesson";
import { find } from "./page";
import { startPalette } from "./palette";

startPalette();
const article = find("article[data-lesson]");
if (article) startLesson(article);
