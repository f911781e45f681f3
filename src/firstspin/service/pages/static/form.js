// The registration form <-> the registration of a request <-> the fragment of the address.
// The fragment stays in the browser: age and gender reach no server's log of addresses.

/** The name that a text spells in any case, width and space, as the service reads it; the exact spelling wins. */
function spelt(text, names) {
  const fold = (name) => name.normalize("NFKC").trim().replace(/\s+/g, " ").toUpperCase().toLowerCase();
  return names.find((name) => name === text) ?? names.find((name) => fold(name) === fold(text));
}

const MAX_LISTENS = 200; // of a request
const MAX_SECONDS = 86400; // of a listen
const MAX_TEXT = 200; // characters of a station's id

/** A listen as a part of the address: "180:STATION" or "skipped:STATION". */
const written = ({ station_id, seconds }) => `${seconds ?? "skipped"}:${station_id}`;

/** The listen of a part of the address; none where the service would refuse it, and with it every change of the form. */
function listen(text) {
  const [, heard, station_id] = /^(skipped|\d+(?:\.\d+)?):(.+)$/.exec(text) ?? [];
  if (!station_id || [...station_id].length > MAX_TEXT) return [];
  if (heard === "skipped") return [{ station_id, skipped: true }];
  const seconds = Number(heard);
  return seconds > 0 && seconds <= MAX_SECONDS ? [{ station_id, seconds }] : [];
}

export class Form {
  constructor(form, changed) {
    this.form = form;
    this.changed = changed;
    this.picks = []; // in the order picked
    this.listens = []; // oldest first
    this.chips = [...form.querySelectorAll("[name=genres]")];
    this.fields = [...form.querySelectorAll(".fields [name]")];
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => this.input(event.target));
    addEventListener("hashchange", () => { if (location.hash !== this.fragment() && location.hash !== "#content") this.start(); });
    this.nameCountries();
    this.foldChips();
  }

  /** Fill the form from the address, then ask. */
  start() {
    const answers = new URLSearchParams(location.hash.slice(1));
    const genres = this.chips.map((chip) => chip.value);
    this.picks = [...new Set(answers.getAll("genres").map((genre) => spelt(genre, genres)))].filter((genre) => genre !== undefined);
    this.listens = answers.getAll("listens").flatMap(listen).slice(-MAX_LISTENS);
    for (const chip of this.chips) chip.checked = this.picks.includes(chip.value);
    for (const field of this.fields) {
      const answer = answers.get(field.name) ?? "";
      field.value = field.options ? spelt(answer, [...field.options].map((option) => option.value)) ?? "" : answer;
    }
    this.showPicks();
    this.changed(this.registration());
  }

  input(target) {
    if (target.name === "genres") {
      this.picks = this.picks.filter((genre) => genre !== target.value);
      if (target.checked) this.picks.push(target.value);
    } else if (!target.name) return; // the search field
    this.ask();
  }

  /** Add a listen of this newcomer; without one, forget them all. */
  hear(listen) {
    this.listens = listen ? [...this.listens, listen].slice(-MAX_LISTENS) : [];
    this.ask();
  }

  ask() {
    const registration = this.registration();
    this.changed(registration); // the request is on its way while the address changes
    history.replaceState(null, "", this.fragment(registration) || location.pathname);
  }

  /** The body of a request: what is answered, and valid. */
  registration() {
    const answers = {};
    for (const field of this.fields) {
      const valid = field.checkValidity();
      field.toggleAttribute("aria-invalid", !valid);
      if (valid && field.value.trim()) answers[field.name] = field.type === "number" ? field.valueAsNumber : field.value;
    }
    if (this.picks.length) answers.genres = [...this.picks];
    if (this.listens.length) answers.listens = [...this.listens];
    return answers;
  }

  fragment(registration = this.registration()) {
    const answers = Object.entries(registration).flatMap(([name, value]) => [value].flat().map((one) => [name, name === "listens" ? written(one) : String(one)]));
    return answers.length ? `#${new URLSearchParams(answers)}` : "";
  }

  /** Countries by name where the browser knows their code. */
  nameCountries() {
    const names = new Intl.DisplayNames(undefined, { type: "region", fallback: "none" });
    for (const option of this.form.querySelectorAll("[name=country] option")) {
      if (/^[A-Z]{2}$/.test(option.value)) option.textContent = names.of(option.value) ?? option.value;
    }
  }

  /** Less popular genres stay behind a button; a search looks through all of them. */
  foldChips() {
    const further = this.chips.filter((chip) => chip.closest("[data-further]"));
    if (!further.length) return;
    this.more = document.createElement("button");
    this.more.type = "button";
    this.more.className = "chip";
    this.more.setAttribute("aria-expanded", "false");
    this.more.addEventListener("click", () => {
      this.unfolded = !this.unfolded;
      this.showPicks();
    });
    this.further = further;
    this.search = this.form.querySelector("#find");
    this.search?.addEventListener("input", () => this.showPicks());
    document.getElementById("genres").append(this.more);
  }

  showPicks() {
    if (!this.more) return;
    const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
    const wanted = fold(this.search?.value.trim() ?? "");
    for (const chip of this.chips) {
      const shown = wanted ? fold(chip.value).includes(wanted) : this.unfolded || chip.checked || !this.further.includes(chip);
      chip.closest("label").hidden = !shown;
    }
    const hidden = this.further.filter((chip) => !chip.checked).length;
    this.more.textContent = this.unfolded ? "Show fewer" : `+ ${hidden} more`;
    this.more.setAttribute("aria-expanded", String(Boolean(this.unfolded)));
    this.more.hidden = Boolean(wanted) || !hidden;
  }
}
