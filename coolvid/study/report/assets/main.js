// Connects the parts: the frame picker, the theme, and redrawing.

function showPicker(frame) {
  for (const input of document.querySelectorAll("#chips input")) {
    input.checked = Number(input.value) === frame.index;
    if (input.checked) showInside(input.parentElement, byId("chips"));
  }
  byId("previous").disabled = frame === frames[0];
  byId("next").disabled = frame === frames[frames.length - 1];
  byId("current").textContent = `frame ${frame.index}, ${frame.type}, ${whole(frame.bytes)} bytes`;
}

/** Scroll a row sideways until its child is visible. */
function showInside(child, row) {
  const [inner, outer] = [child.getBoundingClientRect(), row.getBoundingClientRect()];
  if (inner.left < outer.left) row.scrollLeft -= outer.left - inner.left + 8;
  if (inner.right > outer.right) row.scrollLeft += inner.right - outer.right + 8;
}

function startPicker() {
  byId("chips").replaceChildren(...shown.map((index) => html("label", {},
    html("input", { type: "radio", name: "frame", value: index, onchange: () => choose(index), "aria-label": `frame ${index}, ${frameOf.get(index).type}` }),
    html("span", { "aria-hidden": "true" }, String(index), html("i", {}, frameOf.get(index).type)))));
  byId("previous").addEventListener("click", () => choose(neighbour(-1)));
  byId("next").addEventListener("click", () => choose(neighbour(1)));
  byId("earlier").addEventListener("click", () => choose(frames[Math.max(0, timeline.first - TIMELINE.page)].index));
  byId("later").addEventListener("click", () => choose(frames[timeline.first + TIMELINE.page].index));
  byId("bars").addEventListener("change", redraw);
  byId("latent-kind").addEventListener("change", redraw);
  byId("metric").addEventListener("change", showCurves);
}

const THEME = "coolvid-report-theme";

function startTheme() {
  const select = byId("theme");
  const apply = () => {
    if (select.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = select.value;
    redraw();
  };
  try {
    select.value = localStorage.getItem(THEME) ?? "auto";
  } catch { /* no storage: the theme lasts until the page is closed */ }
  select.addEventListener("change", () => {
    try {
      localStorage.setItem(THEME, select.value);
    } catch { /* as above */ }
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  apply();
}

/** The largest of the shown frames with the most references: it has content in most sections. */
function sensibleFrame() {
  const predicted = shown.map((index) => frameOf.get(index)).filter((frame) => frame.references.length);
  return predicted.sort((a, b) => b.references.length - a.references.length || b.bytes - a.bytes)[0]?.index ?? shown[0];
}

function start() {
  startPicker();
  startViewer();
  showLegend();
  chosen.index = sensibleFrame();
  chosen.listeners.push(showPicker, drawTimeline, showDetails, showViewer, showMotion, showLatents);
  startTheme();
  showCurves();
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    drawTimeline(frameOf.get(chosen.index));
    sizePair();
    showCurves();
  });
}

start();
