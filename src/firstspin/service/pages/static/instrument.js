// The instrument: probabilities as bars, the contribution of each answer, the business rule's and a challenger's answer.
import { arrange, element, say } from "./motion.js";

const at = (id) => document.getElementById(id);
export const percent = (share) => (share > 0 && share < 0.005 ? "<1%" : `${Math.round(100 * share)}%`);
const ABOVE = 3; // genres of another policy's answer that are listed
const SCALES = [0.25, 0.5, 0.75, 1];
const SOURCES = {
  model: ["to answer, by the model", ""],
  popular: ["to answer, by overall popularity", "No answers yet: this is the ranking for all new users."],
  "under-age": ["to answer, by the business rule", "Under the minimum age: age and gender are not used, and nothing is stored."],
  "rule-arm": ["to answer, by the business rule", "The experiment's arm of the business rule answers this user."],
  rule: ["to answer, by the business rule", "The model failed, so the business rule answered."],
  "no-model": ["to answer, without a model", "There is no model yet, so nothing can be recommended."],
  batch: ["to look up the stored answer", ""],
  champion: ["to answer, by the model", "The experiment's challenger failed, so the bundle in service answered."],
};

export class Instrument {
  show(answer, took) {
    const [words, note] = SOURCES[answer.source] ?? [`to answer, by ${answer.source}`, ""];
    at("took").textContent = took === null ? "–" : took < 10 ? took.toFixed(2) : took.toFixed(0);
    at("source").textContent = words;
    at("note").textContent = note;
    at("note").hidden = !note;
    this.answer = answer;
    const top = Math.max(...answer.genres.map(({ probability }) => probability), 0);
    this.scale = SCALES.find((scale) => top <= scale) ?? 1;
    const shares = new Map(answer.genres.map(({ genre, probability }) => [genre, probability]));
    arrange(at("reasons"), [...shares.keys()], makeRow, (row, genre) => this.fillRow(row, genre, shares.get(genre)));
    const [first] = answer.genres;
    at("peek").textContent = first ? `${percent(first.probability)} ${first.genre}` : "No genre";
  }

  fillRow(row, genre, share) {
    const [name, track, shown] = row.children;
    say(name, genre);
    name.title = genre;
    track.querySelector("i").style.transform = `translateX(${(100 * share) / this.scale - 100}%)`;
    say(shown, percent(share));
  }

  /** The contributions and the business rule's answer; null where they could not be had. */
  explain(explanation) {
    const rule = explanation?.rule;
    const places = rule?.genres.map(({ genre }) => genre) ?? [];
    const reasons = new Map(explanation?.genres.map((reason) => [reason.genre, reason]));
    [...at("reasons").children].forEach((row, place) => {
      const reason = reasons.get(row.dataset.key);
      showEffects(row.querySelector(".effects"), reason?.moved);
      showMove(row.querySelector(".moved"), reason && place, places.indexOf(row.dataset.key));
      const tick = row.querySelector("b");
      tick.hidden = !reason;
      if (reason) tick.style.transform = `translateX(${Math.min(100, (100 * reason.rule) / this.scale)}%)`;
    });
    at("key").hidden = !rule;
    showOther(at("rule"), rule, this.answer);
  }

  challenge(answer) {
    showOther(at("challenger"), answer, this.answer);
  }
}

function makeRow() {
  const row = element("li", "reason");
  const track = element("span", "track");
  track.setAttribute("aria-hidden", "true");
  const bar = element("span");
  bar.append(element("i"));
  track.append(bar, element("b"));
  track.lastChild.hidden = true;
  const name = element("bdi", "genre");
  row.append(name, track, element("span", "share"), element("span", "moved"), element("p", "effects"));
  return row;
}

function showEffects(line, moved) {
  const parts = Object.entries(moved ?? {}).map(([question, by]) => {
    const points = Math.round(100 * by);
    const part = element("span", "", `${question === "genres" ? "picks" : question.replaceAll("_", " ")} `);
    part.append(element("b", "", points ? `${points > 0 ? "+" : "−"}${Math.abs(points)}` : "0"));
    return part;
  });
  line.replaceChildren(...parts);
}

/** Mark the place of a genre with what it is compared to; a place is -1 where the genre is not among the first ones. */
export function showMove(cell, place, otherPlace, other = "the business rule") {
  const up = otherPlace - place;
  const [shown, words] =
    place === undefined ? ["", ""]
    : otherPlace < 0 ? ["new", `not among the first genres by ${other}`]
    : up > 0 ? [`▲ ${up}`, `${up} higher than by ${other}`]
    : up < 0 ? [`▼ ${-up}`, `${-up} lower than by ${other}`]
    : ["–", `in the same place as by ${other}`];
  cell.className = up > 0 || otherPlace < 0 ? "moved up" : "moved";
  const mark = element("span", "", shown);
  mark.setAttribute("aria-hidden", "true");
  cell.replaceChildren(mark, element("span", "unseen", words));
  cell.title = words;
}

function showOther(card, other, answer) {
  card.hidden = !other?.genres.length;
  if (card.hidden) return;
  const first = other.genres.slice(0, ABOVE);
  const station = new Map((other.stations ?? []).map((one) => [one.genre, one.name]).reverse());
  arrange(card.querySelector(".list"), first.map(({ genre }) => genre), () => element("li"), (line, genre) => {
    const [name, played] = [element("bdi", "", genre), element("span")];
    played.append(element("bdi", "", station.get(genre) ?? ""));
    line.replaceChildren(name, played);
  });
  const ours = answer.genres.slice(0, ABOVE).map(({ genre }) => genre);
  const same = first.filter(({ genre }) => ours.includes(genre)).length;
  card.lastElementChild.textContent = `${same} of ${first.length} are the same as above.`;
}
