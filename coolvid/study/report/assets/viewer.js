// Two overlaid pictures of a frame, with a divider between them.

const GAIN = 8;
const viewer = { share: 50, drawing: 0 };

/** The available pictures of a frame: [key, name, draw(canvas)]. */
function layersOf(frame, view) {
  const pictures = view.pictures;
  const layers = Object.keys(pictures).map((key) => [key, key, (canvas) => drawPicture(canvas, pictures[key])]);
  if (pictures.source) layers.push(["difference", `difference × ${GAIN}`, (canvas) => drawDifference(canvas, pictures)]);
  view.flow.forEach((flow, i) => layers.push([`flow${i}`, `motion to frame ${frame.references[i]}`, (canvas) => paintFlow(canvas, flow)]));
  for (const [key, plane] of Object.entries(view.weights)) layers.push([key, `mask ${key}`, (canvas) => paintGrey(canvas, plane)]);
  layers.push(["bits", "bits per pixel", (canvas) => paintRamp(canvas, view.bits)]);
  return layers;
}

const loaded = new Map();

function load(uri) {
  if (!loaded.has(uri)) {
    const image = new Image();
    image.src = uri;
    loaded.set(uri, image.decode().then(() => image));
  }
  return loaded.get(uri);
}

async function drawPicture(canvas, uri) {
  const image = await load(uri);
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  canvas.getContext("2d").drawImage(image, 0, 0);
}

/** |source - decoded| of each colour, GAIN times as bright. */
async function drawDifference(canvas, pictures) {
  await drawPicture(canvas, pictures.source);
  const image = canvas.getContext("2d");
  image.globalCompositeOperation = "difference";
  image.drawImage(await load(pictures.decoded), 0, 0);
  image.globalCompositeOperation = "lighter";
  for (let gain = 1; gain < GAIN; gain *= 2) image.drawImage(canvas, 0, 0);
  image.globalCompositeOperation = "source-over";
}

async function showViewer(frame, view) {
  byId("stage").hidden = !view;
  byId("no-picture").hidden = Boolean(view);
  byId("picture-note").textContent = "";
  if (!view) {
    byId("no-picture").textContent = `This page has no pictures of frame ${frame.index}; add them with coolvid report --frames ${frame.index}.`;
    return;
  }
  const layers = layersOf(frame, view);
  const options = layers.map(([key, name]) => [key, name]);
  const usual = view.pictures.source ? ["source", "decoded"] : view.pictures.prediction ? ["prediction", "decoded"] : ["decoded", "bits"];
  offer(byId("left"), options, usual[0]);
  offer(byId("right"), options, usual[1]);
  const drawing = (viewer.drawing += 1);
  await Promise.all([["left", "before"], ["right", "after"]].map(async ([side, place]) => {
    const [, name, draw] = layers.find(([key]) => key === byId(side).value);
    const canvas = html("canvas");
    await draw(canvas);
    if (drawing !== viewer.drawing) return;
    const target = byId(place);
    target.width = canvas.width;
    target.height = canvas.height;
    target.getContext("2d").drawImage(canvas, 0, 0);
    target.setAttribute("aria-label", `${name} of frame ${frame.index}`);
    target.setAttribute("role", "img");
    byId(`${place}-name`).textContent = name;
  }));
  if (drawing !== viewer.drawing) return;
  sizePair();
  byId("pair").dataset.frame = frame.index;
  byId("picture-note").textContent = viewerNote();
}

function viewerNote() {
  const small = report.divisor > 1 ? `Pictures are shown at 1/${report.divisor} size; choose fewer frames (--frames) for larger pictures. ` : "";
  return small + "Drag the divider, click to move it, or use the arrow keys.";
}

function sizePair() {
  const canvas = byId("before");
  const zoom = byId("zoom").value;
  const room = Math.min(byId("stage").clientWidth, (window.innerHeight * 0.78 * canvas.width) / canvas.height);
  const width = zoom === "fit" ? room : canvas.width * Number(zoom);
  const ratio = (width * window.devicePixelRatio) / canvas.width;
  byId("pair").style.width = `${width}px`;
  byId("pair").classList.toggle("draggable", zoom === "fit");
  byId("pair").classList.toggle("smooth", ratio < 1.5 && ratio % 1 !== 0);
}

/** Put the divider at a share, 0..100, of the width. */
function divide(share) {
  viewer.share = Math.max(0, Math.min(100, share));
  const divider = byId("divider");
  divider.style.left = `${viewer.share}%`;
  divider.setAttribute("aria-valuenow", Math.round(viewer.share));
  divider.setAttribute("aria-valuetext", `${Math.round(viewer.share)} % left, ${100 - Math.round(viewer.share)} % right`);
  byId("after").style.clipPath = `inset(0 0 0 ${viewer.share}%)`;
}

function divideByKey(event) {
  const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -20, PageUp: 20, Home: -100, End: 100 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  event.stopPropagation();
  divide(viewer.share + steps[event.key]);
}

function startViewer() {
  const divider = byId("divider");
  const follow = (event) => {
    const box = byId("pair").getBoundingClientRect();
    divide((100 * (event.clientX - box.left)) / box.width);
  };
  const pair = byId("pair");
  pair.addEventListener("pointerdown", (event) => {
    if (event.target === divider || pair.classList.contains("draggable")) pair.setPointerCapture(event.pointerId);
  });
  pair.addEventListener("pointermove", (event) => pair.hasPointerCapture(event.pointerId) && follow(event));
  pair.addEventListener("click", follow);
  divider.addEventListener("keydown", divideByKey);
  byId("flip").addEventListener("click", () => divide(viewer.share > 50 ? 0 : 100));
  byId("zoom").addEventListener("change", sizePair);
  for (const side of ["left", "right"]) byId(side).addEventListener("change", redraw);
  divide(50);
}
