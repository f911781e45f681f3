// The phone: the in-app message and the carousels of an answer, as a listener sees them.
import { artwork } from "./artwork.js";
import { arrange, element, say } from "./motion.js";

const PLAY = '<svg viewBox="0 0 12 12"><path d="M2 0l9 6-9 6z"/></svg>';

export class Phone {
  constructor(message, carousels) {
    this.message = message;
    this.carousels = carousels;
  }

  /** Before the first answer: the shapes of what will come. */
  wait() {
    this.carousels.replaceChildren(...[1, 2, 3].map(() => element("div", "skeleton")));
  }

  show(answer, catalogue) {
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
    arrange(tiles, station_ids, (id) => this.tile(id, catalogue));
  }

  tile(id, catalogue) { // a station is in one carousel at a time
    if (!this.tiles.has(id)) this.tiles.set(id, makeTile(id, catalogue));
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

function makeTile(id, catalogue) {
  const name = station(id, catalogue).name;
  const tile = element("li", "tile");
  const words = element("span", "", name);
  words.dir = "auto";
  words.title = name;
  tile.append(cover(id, catalogue), words);
  return tile;
}

function station(id, catalogue) {
  return catalogue.stations.get(id) ?? { station_id: id, name: id, genre: "" };
}

function cover(id, catalogue) {
  const of = station(id, catalogue);
  return artwork(of, catalogue.hues.get(of.genre) ?? 200);
}
