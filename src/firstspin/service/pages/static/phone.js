// The phone: the in-app message and the carousels of an answer, as a listener sees them.
import { artwork } from "./artwork.js";
import { arrange, element, say } from "./motion.js";

const PLAY = '<svg viewBox="0 0 12 12"><path d="M2 0l9 6-9 6z"/></svg>';
const SKIP = '<svg viewBox="0 0 12 12"><path d="M0 0l8 6-8 6zM9 0h2.5v12H9z"/></svg>';
const PLAYED = 180; // seconds
const USING_LISTENS = ["model", "popular"]; // sources of answers that listens move

export class Phone {
  /** `hear` takes a listen and the station's name; without it, tiles have no buttons. */
  constructor(message, carousels, hear) {
    this.message = message;
    this.carousels = carousels;
    this.hear = hear;
    carousels.addEventListener("keydown", rove);
  }

  /** Before the first answer: the shapes of what will come. */
  wait() {
    this.carousels.replaceChildren(...[1, 2, 3].map(() => element("div", "skeleton")));
  }

  /** Whether listens move this answer. */
  hears(answer) {
    return Boolean(this.hear) && USING_LISTENS.includes(answer.source);
  }

  show(answer, catalogue, listens) {
    this.heard = new Map(listens.map(({ station_id, skipped }) => [station_id, skipped ? "skipped" : "played"]));
    this.carousels.toggleAttribute("data-deaf", !this.hears(answer));
    this.showMessage(answer.message, catalogue);
    if (this.model !== catalogue.model) { // it may have other stations
      this.carousels.replaceChildren();
      this.tiles = new Map();
      this.model = catalogue.model;
    }
    const carousels = new Map(answer.carousels?.map((carousel) => [carousel.genre, carousel]));
    arrange(this.carousels, [...carousels.keys()], makeCarousel, (section, genre) => this.fillCarousel(section, carousels.get(genre), catalogue));
    if (!carousels.size) this.carousels.replaceChildren(element("p", "muted", "This service has no stations to show."));
  }

  showMessage(message, catalogue) {
    this.message.hidden = !message;
    if (!message) return;
    const key = JSON.stringify(message);
    if (this.message.dataset.key === key) return;
    const words = element("div");
    words.append(element("h2", "", message.title), element("p", "", message.reason));
    for (const line of words.children) line.dir = "auto";
    const play = element("span", "go");
    play.innerHTML = PLAY;
    play.setAttribute("aria-hidden", "true");
    this.message.className = "message";
    this.message.dataset.key = key;
    this.message.replaceChildren(cover(message.station_id, catalogue), words, play);
  }

  fillCarousel(section, { title, station_ids }, catalogue) {
    const [heading, tiles] = section.children;
    say(heading, title);
    heading.dir = "auto";
    heading.title = title;
    tiles.setAttribute("aria-label", `Stations: ${title}`);
    arrange(tiles, station_ids, (id) => this.tile(id, catalogue), (tile, id) => { tile.dataset.heard = this.heard.get(id) ?? ""; });
    reach([...tiles.children].find((tile) => tile.contains(document.activeElement)) ?? tiles.firstChild);
  }

  tile(id, catalogue) { // a station is in one carousel at a time
    if (!this.tiles.has(id)) this.tiles.set(id, makeTile(id, catalogue, this.hear));
    return this.tiles.get(id);
  }
}

function makeCarousel() {
  const section = element("section", "carousel");
  const tiles = element("ul", "tiles");
  tiles.tabIndex = 0;
  section.append(element("h2"), tiles);
  return section;
}

function makeTile(id, catalogue, hear) {
  const name = station(id, catalogue).name;
  const tile = element("li", "tile");
  const words = element("span", "", name);
  words.dir = "auto";
  words.title = name;
  tile.append(cover(id, catalogue), words);
  if (hear) {
    const buttons = element("div", "hear");
    buttons.append(
      makeButton("Play", PLAY, name, () => hear({ station_id: id, seconds: PLAYED }, name)),
      makeButton("Skip", SKIP, name, () => hear({ station_id: id, skipped: true }, name)),
    );
    tile.append(buttons);
  }
  return tile;
}

function makeButton(word, picture, name, act) {
  const button = element("button");
  button.type = "button";
  button.tabIndex = -1;
  button.innerHTML = picture;
  button.firstChild.setAttribute("aria-hidden", "true");
  button.title = word;
  button.setAttribute("aria-label", `${word} ${name}`);
  button.addEventListener("click", act);
  return button;
}

/** Of the tiles of a carousel, this one is reached by the Tab key. */
function reach(tile) {
  for (const button of tile?.parentElement.querySelectorAll("button") ?? []) button.tabIndex = tile.contains(button) ? 0 : -1;
}

/** The arrow keys go from tile to tile. */
function rove(event) {
  const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  const tile = event.target.closest(".hear")?.parentElement;
  const next = step && tile?.[step];
  if (!next) return;
  const kind = [...tile.querySelectorAll("button")].indexOf(event.target);
  reach(next);
  next.querySelectorAll("button")[kind].focus();
  event.preventDefault();
}

function station(id, catalogue) {
  return catalogue.stations.get(id) ?? { station_id: id, name: id, genre: "" };
}

function cover(id, catalogue) {
  const of = station(id, catalogue);
  return artwork(of, catalogue.hues.get(of.genre) ?? 200);
}
