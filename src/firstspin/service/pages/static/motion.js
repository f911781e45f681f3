// Motion shows what moved: elements travel from their old place to the new one, and new ones appear.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const TIMING = { duration: 200, easing: "ease-out" };

/** Put keyed children into a parent in this order, reusing those that are there. `make` builds, `fill` updates. */
export function arrange(parent, keys, make, fill) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const places = still.matches ? new Map() : new Map([...before].map(([key, child]) => [key, child.getBoundingClientRect()]));
  const after = keys.map((key, position) => {
    const child = before.get(key) ?? make(key);
    child.dataset.key = key;
    fill?.(child, key, position);
    return child;
  });
  const same = after.length === before.size && after.every((child, position) => parent.children[position] === child);
  if (same) return;
  parent.replaceChildren(...after);
  if (still.matches || !before.size) return;
  for (const child of after) {
    const old = places.get(child.dataset.key);
    if (!old) child.animate([{ opacity: 0 }, { opacity: 1 }], TIMING);
    else {
      const now = child.getBoundingClientRect();
      const [x, y] = [old.left - now.left, old.top - now.top];
      if (x || y) child.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], TIMING);
    }
  }
}

/** An element with a class and text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
