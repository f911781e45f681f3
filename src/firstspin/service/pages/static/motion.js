// Motion shows what moved: elements travel from their old place to the new one, and new ones appear.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const TIMING = { duration: 200, easing: "ease-out" };

/** Put keyed children into a parent in this order, reusing those that are there. `make` builds, `fill` updates. */
export function arrange(parent, keys, make, fill) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const stays = keys.length === before.size && [...before.keys()].every((key, position) => key === keys[position]);
  const moves = !stays && before.size > 0 && !still.matches;
  const places = new Map(moves ? [...before].map(([key, child]) => [key, child.getBoundingClientRect()]) : []);
  const after = keys.map((key) => before.get(key) ?? made(make(key), key));
  after.forEach((child, position) => fill?.(child, keys[position]));
  if (!stays) parent.replaceChildren(...after);
  if (moves) for (const child of after) travel(child, places.get(child.dataset.key));
}

function made(child, key) {
  child.dataset.key = key;
  return child;
}

function travel(child, from) {
  if (!from) {
    child.animate([{ opacity: 0 }, { opacity: 1 }], TIMING);
    return;
  }
  const to = child.getBoundingClientRect();
  const [x, y] = [from.left - to.left, from.top - to.top];
  if (x || y) child.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], TIMING);
}

/** An element with a class and text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
