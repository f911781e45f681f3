// Motion shows what moved: elements travel from their old place to the new one, and new ones appear.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const TIMING = { duration: 200, easing: "ease-out" };

/** Make a change, and let the children of these parents travel. Places are read once before and once after it. */
export function moving(parents, change) {
  if (still.matches) return change();
  const places = new Map(children(parents).map((child) => [child, child.getBoundingClientRect()]));
  change();
  if (!places.size) return undefined; // the first answer
  const moves = children(parents).map((child) => [child, places.get(child), child.getBoundingClientRect()]);
  for (const [child, from, to] of moves) {
    const [x, y] = from ? [from.left - to.left, from.top - to.top] : [0, 0];
    if (!from) child.animate([{ opacity: 0 }, { opacity: 1 }], TIMING);
    else if (x || y) child.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], TIMING);
  }
  return undefined;
}

const children = (parents) => parents.flatMap((parent) => [...parent.children]);

/** Put keyed children into a parent in this order, reusing those that are there. `make` builds, `fill` updates. */
export function arrange(parent, keys, make, fill) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const after = keys.map((key) => {
    const child = before.get(key) ?? make(key);
    child.dataset.key = key;
    fill?.(child, key);
    return child;
  });
  const stay = new Set(after);
  for (const child of [...parent.children]) if (!stay.has(child)) child.remove();
  let next = parent.firstChild; // a child in its place is not touched: what is put in anew is laid out anew
  for (const child of after) {
    if (child === next) next = next.nextSibling;
    else parent.insertBefore(child, next);
  }
}

/** Set a text where it is another one. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** An element with a class and text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
