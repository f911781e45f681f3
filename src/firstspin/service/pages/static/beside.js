// Champion and challenger: what the bundle in service and the shadow bundle answer to the same registration.
import { ask } from "./api.js";
import { percent, showMove } from "./instrument.js";
import { element } from "./motion.js";

const SHOWN = 5; // genres of each answer

export class Beside {
  constructor(card) {
    this.card = card;
    this.asking = false;
    this.next = null;
  }

  /** Show the challenger's answer beside the champion's. One question at a time is asked, then the latest one. */
  async show(registration, champion) {
    this.next = { registration, champion };
    this.card.setAttribute("aria-busy", "true");
    if (this.asking) return;
    this.asking = true;
    while (this.next) {
      const asked = this.next;
      this.next = null;
      const challenger = await ask("/challenger", asked.registration).then(({ body }) => body, () => null);
      this.card.hidden = !challenger;
      if (challenger) this.fill(asked.champion, challenger);
    }
    this.asking = false;
    this.card.removeAttribute("aria-busy");
  }

  fill(...answers) {
    this.card.querySelectorAll("code").forEach((code, place) => { code.textContent = answers[place].model; });
    const table = this.card.querySelector("table");
    [...table.tBodies].forEach((body) => body.remove());
    table.append(
      group("Genres", answers.map(({ genres }) => genres.slice(0, SHOWN)), (cell, { genre, probability }, column, place) => {
        cell.append(element("bdi", "genre", genre), element("span", "share", percent(probability)));
        if (!column) return;
        cell.append(element("span"));
        showMove(cell.lastChild, place, answers[0].genres.findIndex((one) => one.genre === genre), "the champion");
      }),
      group("Rows of the home page", answers.map(({ carousels }) => carousels), (cell, { title }) => cell.append(element("bdi", "genre", title))),
    );
    this.card.lastElementChild.textContent = agreement(...answers.map(({ genres }) => genres.map(({ genre }) => genre).slice(0, 3)));
  }
}

/** A part of the table: in each line the champion's entry of this place, and the challenger's. */
function group(name, columns, fill) {
  const body = element("tbody");
  const head = element("th", "", name);
  head.colSpan = 3;
  head.scope = "rowgroup";
  const line = element("tr");
  line.append(head);
  body.append(line);
  for (let place = 0; place < Math.max(...columns.map((column) => column.length)); place += 1) {
    const row = element("tr");
    const number = element("th", "", String(place + 1));
    number.scope = "row";
    row.append(number);
    columns.forEach((entries, column) => {
      const cell = element("td");
      const inner = element("div");
      cell.append(inner);
      if (entries[place]) fill(inner, entries[place], column, place);
      row.append(cell);
    });
    body.append(row);
  }
  return body;
}

function agreement(champion, challenger) {
  const same = challenger.filter((genre) => champion.includes(genre)).length;
  return `${champion[0] === challenger[0] ? "The first genre is the same" : "The first genre differs"}; ${same} of the first ${challenger.length} are the same.`;
}
