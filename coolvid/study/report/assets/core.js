// Shared by all parts of the page: the data, the chosen frame, and helpers for elements and numbers.

const report = JSON.parse(document.getElementById("data").textContent);
const frames = report.frames;
const frameOf = new Map(frames.map((frame) => [frame.index, frame]));
const shown = Object.keys(report.views).map(Number).sort((a, b) => a - b);
const byId = (id) => document.getElementById(id);

const PARTS = [
  { key: "residue-latents", name: "residue latents", holds: (part) => part === "residue.latents" },
  { key: "residue-networks", name: "residue networks", holds: (part) => part.startsWith("residue.") && part !== "residue.latents" },
  { key: "motion-latents", name: "motion latents", holds: (part) => part === "motion.latents" },
  { key: "motion-networks", name: "motion networks", holds: (part) => part.startsWith("motion.") && part !== "motion.latents" },
  { key: "header", name: "header", holds: (part) => part === "header" },
];

const chosen = { index: frames.length ? frames[0].index : 0, listeners: [] };

/** Choose a frame and redraw everything that depends on it. */
function choose(index) {
  if (!frameOf.has(index)) return;
  chosen.index = index;
  redraw();
}

function redraw() {
  for (const listener of chosen.listeners) listener(frameOf.get(chosen.index), report.views[chosen.index]);
}

/** Bits of each of PARTS. */
function bitsOf(frame) {
  const named = Object.entries(frame.bits);
  return PARTS.map((part) => named.reduce((sum, [name, bits]) => sum + (part.holds(name) ? bits : 0), 0));
}

/** The frame before (step -1) or after (step 1) the chosen one, in display order. */
function neighbour(step) {
  const at = frames.findIndex((frame) => frame.index === chosen.index) + step;
  return frames[Math.max(0, Math.min(frames.length - 1, at))].index;
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const html = (name, attributes, ...children) => build(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/** 12345 -> 12 345, with a thin space. */
const whole = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u2009");
const signed = (value) => String(value).replace("-", "\u2212");
const decibels = (value) => (typeof value === "number" ? value.toFixed(2) + " dB" : value === "equal" ? "equal" : "–");
const measured = (value) => typeof value === "number";

/** Round steps for an axis from low to high, about `count` of them. */
function ticks(low, high, count) {
  const span = Math.max(high - low, 1e-9);
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= count) ?? span;
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i += 1) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** Formats numbers, all with as many decimals as the one that needs most. */
function alike(values) {
  const digits = Math.max(0, ...values.map((value) => (String(value).split(".")[1] ?? "").length));
  return (value) => signed(value.toFixed(digits));
}

/** A custom property of the style as [r, g, b], in the current colour scheme. */
function color(name) {
  const probe = html("i", { style: `color: var(${name})` });
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

/** Set the options of a select, and keep its value if it is still one of them. */
function offer(select, options, fallback) {
  const value = options.some(([key]) => key === select.value) ? select.value : fallback;
  select.replaceChildren(...options.map(([key, name]) => html("option", { value: key }, name)));
  select.value = value;
}
