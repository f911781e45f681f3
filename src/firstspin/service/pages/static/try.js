// The page "Try it": every change of the form asks the service again and shows its answer.
import { ask, catalogue } from "./api.js";
import { Beside } from "./beside.js";
import { Form } from "./form.js";
import { Instrument } from "./instrument.js";
import { moving } from "./motion.js";
import { Phone } from "./phone.js";
import { share } from "./share.js";

const page = document.getElementById("try");
const at = (id) => document.getElementById(id);
const explained = page.dataset.explained === "yes";
const phone = new Phone(at("message"), at("carousels"), page.dataset.listens === "yes" ? hear : null);
const instrument = new Instrument();
const beside = page.dataset.shadowed === "yes" ? new Beside(at("beside")) : null;
const form = new Form(at("form"), changed);
const RETRY = 2000;
let number = 0; // of the latest question: an answer to an earlier one is not shown
let last = { registration: {}, answer: null };
let retry = 0;

async function changed(registration) {
  const mine = ++number;
  clearTimeout(retry);
  const latest = (show) => (...shown) => { if (mine === number) show(...shown); };
  // Explanations are asked once the answer is painted: it must not wait for them.
  try {
    const { body, took } = await ask("/invocations", registration);
    const stations = await catalogue(body);
    latest(() => {
      last = { registration, answer: body };
      problem(body.source !== "batch" && body.model !== page.dataset.model ? "The model was replaced: reload this page to see its form." : "");
      const focused = document.activeElement;
      moving([at("carousels"), at("reasons")], () => {
        phone.show(body, stations, registration.listens ?? []);
        instrument.show(body, took);
        showHeard(body, registration.listens ?? []);
      });
      refocus(focused);
      speak(body);
    })();
  } catch (failure) {
    latest(() => {
      problem(failure.message);
      if (failure.temporary) retry = setTimeout(() => changed(registration), RETRY);
    })();
    return;
  }
  await painted();
  if (mine !== number) return;
  if (explained) ask("/v1/explanations", registration).then(latest(({ body }) => instrument.explain(body)), latest(() => instrument.explain(null)));
  beside?.show(registration, last.answer);
  if (at("model").value) compare(registration, latest);
}

let heard = ""; // what the next line for screen readers begins with

function hear(listen, name) {
  heard = `${listen.skipped ? "Skipped" : "Played"} ${name}.`;
  form.hear(listen);
}

function showHeard(answer, listens) {
  const [words, forget] = at("heard").children;
  const skipped = listens.filter((listen) => listen.skipped).length;
  words.textContent = listens.length ? `${listens.length - skipped} played, ${skipped} skipped` : "Play or skip a station: the ranking moves.";
  forget.hidden = !listens.length;
  at("heard").hidden = !(phone.hears(answer) && answer.carousels?.length);
}

/** Keep the focus: an element that is moved in the page loses it, and one that is gone can't have it. */
function refocus(focused) {
  if (document.activeElement === focused) return;
  [focused, at("forget"), ...document.querySelectorAll(".hear [tabindex='0']")].find((one) => one.offsetParent)?.focus({ preventScroll: true });
}

const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

function compare(registration, latest) {
  const name = at("model").value;
  ask(`/models/${encodeURIComponent(name)}/invoke`, registration).then(latest(({ body }) => instrument.challenge(body)), latest(() => instrument.challenge(null)));
}

async function challengers() {
  const { models } = await (await fetch("/models")).json();
  at("model").replaceChildren(...models.map(({ modelName }) => new Option(modelName)));
  if (models.length && last.answer) compare(last.registration, (show) => show); // else with the first answer
  at("model").addEventListener("change", () => compare(last.registration, (show) => show));
}

function problem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
  page.toggleAttribute("data-stale", Boolean(text));
}

let speaking = 0;
function speak(answer) { // one line for screen readers, when the form has been at rest for a moment
  clearTimeout(speaking);
  const first = answer.genres.slice(0, 3).map(({ genre, probability }) => `${genre} ${Math.round(100 * probability)}%`);
  speaking = setTimeout(() => { at("spoken").textContent = [...[heard].filter(Boolean), [answer.message?.title, first.join(", ")].filter(Boolean).join(". ")].join(" "); heard = ""; }, 500);
}

at("forget").addEventListener("click", () => {
  heard = "Listens forgotten.";
  form.hear(null);
});
at("pull").addEventListener("click", () => {
  const open = at("instrument").classList.toggle("open");
  at("pull").setAttribute("aria-expanded", String(open));
  at("pull-word").textContent = open ? "Close" : "Open";
});
document.body.classList.add("sheet");
at("explained").hidden = !explained;
at("unexplained").hidden = explained;
share(() => last);
phone.wait();
form.start();
if (page.dataset.challengers === "yes") challengers();
