// A station's artwork: the colour of the station, or else of its genre; a shape from its id; its initials.

const SPACE = "http://www.w3.org/2000/svg";
const SHAPES = [
  ["circle", { cx: 62, cy: 112, r: 48 }],
  ["circle", { cx: 96, cy: 8, r: 42 }],
  ["path", { d: "M0 74 Q25 54 50 74 T100 74 V100 H0z" }],
  ["path", { d: "M0 100 L100 38 V100z" }],
  ["path", { d: "M0 0 H34 L0 34z M100 100 H58 L100 58z" }],
  ["path", { d: "M8 100 V72 H22 V100z M30 100 V60 H44 V100z M52 100 V78 H66 V100z M74 100 V66 H88 V100z" }],
];

function hash(text) {
  let value = 2166136261; // FNV-1a
  for (const unit of text) value = Math.imul(value ^ unit.codePointAt(0), 16777619) >>> 0;
  return value;
}

const symbols = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const first = (text, count) => [...symbols.segment(text)].slice(0, count).map(({ segment }) => segment).join("");

export function initials(name) {
  const words = name.split(/\s+/).map((word) => word.replace(/^[^\p{L}\p{N}\p{Extended_Pictographic}]+/u, "")).filter(Boolean);
  const spoken = words.filter((word) => !/^\p{N}/u.test(word)); // a frequency is no name
  return initialsOf(spoken.length ? spoken : words);
}

function initialsOf(words) {
  return (words.length > 1 ? first(words[0], 1) + first(words[1], 1) : first(words[0] ?? "?", 2)).toLocaleUpperCase();
}

function isLight(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => (Number.parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.2;
}

function shape(tag, attributes) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function artwork(station, hue) {
  const place = hash(station.station_id);
  const lightness = 0.42 + 0.03 * (place % 5);
  const ink = station.colour && isLight(station.colour) ? "#14181f" : "#fff";
  const svg = shape("svg", { class: "art", viewBox: "0 0 100 100", "aria-hidden": "true" });
  const text = shape("text", { x: 50, y: 52, fill: ink, "font-size": 30, "font-weight": 700, "text-anchor": "middle", "dominant-baseline": "central" });
  text.textContent = initials(station.name);
  const [tag, attributes] = SHAPES[(place >>> 8) % SHAPES.length];
  svg.append(
    shape("rect", { width: 100, height: 100, fill: station.colour ?? `oklch(${lightness} 0.125 ${hue})` }),
    shape(tag, { ...attributes, fill: ink, opacity: 0.2 }),
    text,
  );
  return svg;
}
