// The page "Operations": panels from server-sent events, and orders after a confirmation.
// The events are read with fetch: an EventSource can't send the key as a header, and a key belongs in no address.

const at = (id) => document.getElementById(id);
const page = at("ops");
const panel = (name) => document.querySelector(`[data-panel="${name}"]`);
const SILENCE = 12_000; // without an event or a comment the connection is given up
const CLOSED = { 503: "Too many readers of this page; trying again.", 404: "This service has no such page." };
let key = "";
let later = {}; // panels of an open dialog: what is being confirmed does not change under the reader's eyes
let awaited = null; // the number of the last change before an order, until its outcome is known
let reading = new AbortController();

const headers = () => (key ? { authorization: `Bearer ${key}` } : {});
const changed = () => [...document.querySelectorAll(".changes li")];
const newest = () => Number(changed()[0]?.dataset.number ?? 0);

function show(panels) {
  for (const [name, html] of Object.entries(panels)) {
    const element = panel(name);
    if (element.closest("dialog")?.open) later[name] = html;
    else element.innerHTML = html; // escaped by the service, and the policy of this page runs no inline script
  }
  at("rollback").disabled = !panel("rollback_words").querySelector("[data-to]");
  const outcome = awaited === null ? null : changed().find(({ dataset }) => dataset.number > awaited && /done|refused|rollback/.test(dataset.kind));
  if (outcome) result(outcome.querySelector("bdi").textContent, outcome.dataset.kind === "refused");
}

function connection(text) {
  if (at("connection").textContent !== text) at("connection").textContent = text;
  page.toggleAttribute("data-stale", Boolean(text));
}

async function read() {
  reading = new AbortController();
  let watch = 0;
  const heard = () => { clearTimeout(watch); watch = setTimeout(() => reading.abort(), SILENCE); };
  heard();
  try {
    const reply = await fetch("/ops/live", { headers: headers(), signal: reading.signal });
    if (reply.status === 401 || reply.status === 403) return await refused(reply);
    if (!reply.ok) return connection(CLOSED[reply.status] ?? `The service refused with ${reply.status}; trying again.`);
    const pieces = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = "", piece; !(piece = await pieces.read()).done;) {
      heard();
      const events = (text + piece.value).split("\n\n");
      text = events.pop();
      for (const data of events.map((event) => /^data: (.*)$/m.exec(event)?.[1]).filter(Boolean)) show(JSON.parse(data));
      at("facts").hidden = false;
      at("key-form").hidden = true;
      connection("");
      tries = 0;
    }
  } finally {
    clearTimeout(watch);
  }
}

let tries = 0;
let wake = () => {};
async function live() {
  for (;;) {
    while (!at("key-form").hidden || document.hidden) await new Promise((done) => { wake = done; });
    await read().catch(() => {});
    if (!at("key-form").hidden || document.hidden) continue;
    if (!at("connection").textContent) connection("No connection: these figures are old. Trying again.");
    await new Promise((done) => { wake = done; setTimeout(done, Math.min(10_000, 500 * 2 ** tries++)); });
  }
}

// A hidden page reads nothing: a browser has six connections to a host, and an order needs one.
document.addEventListener("visibilitychange", () => (document.hidden ? reading.abort() : wake()));
addEventListener("online", () => wake());

async function refused(reply) {
  const { error } = await reply.json();
  at("key-problem").textContent = key ? `Refused: ${error.message}.` : "";
  at("key-problem").hidden = !key;
  key = "";
  at("facts").hidden = true;
  at("key-form").hidden = false;
  at("key").focus();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  at("key").value = "";
  at("key-form").hidden = true;
  wake();
});

// ---------------------------------------------------------------------------------------------------------- orders

function result(text, bad) {
  awaited = null;
  at("result").textContent = text;
  at("result").classList.toggle("bad", bad);
}

async function order(kind, to) {
  const last = newest();
  result("Sent.", false);
  try {
    const reply = await fetch(`/${kind}`, { method: "POST", headers: { ...headers(), "content-type": "application/json" }, body: JSON.stringify(to ? { to } : {}) });
    const answer = await reply.json();
    if (!reply.ok) return result(`Not done: ${answer.error.message}.`, true);
    result(kind === "reload" ? "The bundle is being checked." : `Model ${answer.model} is being put in place.`, false);
    awaited = last;
  } catch {
    result("The service does not answer; whether the order arrived is not known.", true);
  }
}

for (const kind of ["reload", "rollback"]) {
  const dialog = at(`confirm-${kind}`);
  at(kind).addEventListener("click", () => { dialog.returnValue = ""; dialog.showModal(); });
  dialog.addEventListener("close", () => {
    const to = dialog.querySelector("[data-to]")?.dataset.to;
    const waiting = later;
    later = {};
    if (dialog.returnValue === kind) order(kind, to);
    show(waiting);
  });
}

if (page.dataset.keyed === "yes") {
  at("key-form").hidden = false;
  at("key").focus();
} else show({});
live();
