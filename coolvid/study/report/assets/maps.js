// Motion, masks and latents of the chosen frame as tiles.

/** A map with a caption; say(row, column) returns the text for the position under the pointer. */
function tile(name, facts, paint, size, say) {
  const canvas = html("canvas", { role: "img", "aria-label": `${name}, ${facts}` });
  const place = html("output", {});
  const tell = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * size.height);
    const column = Math.floor(((event.clientX - box.left) / box.width) * size.width);
    const isInside = row >= 0 && row < size.height && column >= 0 && column < size.width;
    if (isInside) say(row, column).then((words) => { place.textContent = `row ${row}, column ${column}: ${words}`; });
  };
  canvas.addEventListener("pointermove", tell);
  canvas.addEventListener("pointerdown", tell);
  canvas.addEventListener("pointerleave", () => { place.textContent = ""; });
  paint(canvas);
  return html("figure", { class: "tile" }, canvas, html("figcaption", {}, name, html("span", {}, facts), place));
}

const valueAt = async (plane, row, column) => {
  const { width, steps, values } = await unpack(plane);
  return values[row * width + column] / steps;
};

function showMotion(frame, view) {
  byId("motion").hidden = !view || !view.flow.length;
  if (byId("motion").hidden) return;
  const flows = view.flow.map((flow, i) => {
    const [dy, dx] = view.translation[i];
    const moved = dx || dy ? `, including a global translation of x ${signed(dx)}, y ${signed(dy)}` : "";
    const facts = `longest vector ${flow.longest.toFixed(2)} pixels${moved}`;
    const say = async (row, column) => {
      const [x, y] = await Promise.all([valueAt(flow.x, row, column), valueAt(flow.y, row, column)]);
      return `x ${signed(x.toFixed(2))}, y ${signed(y.toFixed(2))}`;
    };
    return tile(`motion to frame ${frame.references[i]}`, facts, (canvas) => paintFlow(canvas, flow), flow.x, say);
  });
  const meanings = { alpha: "black: not predicted; white: predicted", beta: `black: frame ${frame.references[1]}; white: frame ${frame.references[0]}` };
  const masks = Object.entries(view.weights).map(([name, plane]) => {
    const say = async (row, column) => (await valueAt(plane, row, column)).toFixed(2);
    return tile(`mask ${name}`, meanings[name], (canvas) => paintGrey(canvas, plane), plane, say);
  });
  const wheel = html("canvas", { role: "img", "aria-label": "Colour wheel of the motion" });
  paintWheel(wheel, 176);
  const words = "Hue shows the direction of a vector, saturation its length; the rim is the longest vector of the field. "
    + "A vector points from a pixel of this frame to the position of its prediction in the reference.";
  byId("motion-tiles").replaceChildren(html("div", { class: "tiles wide" }, ...flows, ...masks), html("div", { class: "wheel" }, wheel, html("p", {}, words)));
}

function showLatents(frame, view) {
  byId("latents").hidden = !view || frame.is_copy;
  if (byId("latents").hidden) return;
  const kind = byId("latent-kind").value;
  const branches = Object.entries(view.branches).flatMap(([branch, grids]) => {
    const total = grids.reduce((sum, grid) => sum + grid.total_bits, 0);
    const [sent, zero] = [true, false].map((is) => grids.filter((grid) => Boolean(grid.nonzero) === is));
    return [
      html("h3", {}, `${branch}: ${whole(total)} bits`),
      html("div", { class: "tiles" }, ...sent.map((grid) => gridTile(grid, kind))),
      zero.length ? html("p", { class: "note zero" }, `All zero and not sent: ${zero.map(gridName).join(", ")}.`) : null,
    ];
  });
  byId("latent-tiles").replaceChildren(latentLegend(kind), ...branches.filter(Boolean));
}

const gridName = (grid) => `1/${2 ** grid.log2}${grid.hyper ? " hyper" : ""} (${grid.width} × ${grid.height})`;

function gridTile(grid, kind) {
  const filled = (100 * grid.nonzero) / (grid.width * grid.height);
  const block = grid.block > 1 ? `; blocks of ${grid.block} × ${grid.block}` : "";
  const facts = `${whole(grid.total_bits)} bits; ${signed(grid.low)}..${signed(grid.high)}; ${filled.toFixed(1)} % nonzero${block}`;
  const say = async (row, column) => {
    const [value, bits] = await Promise.all([valueAt(grid.values, row, column), valueAt(grid.bits, row, column)]);
    return `${signed(value)}, ${bits.toFixed(2)} bits`;
  };
  const paint = (canvas) => (kind === "bits" ? paintRamp(canvas, grid.bits) : paintSigned(canvas, grid.values));
  return tile(gridName(grid), facts, paint, grid.values, say);
}

function latentLegend(kind) {
  const stops = kind === "bits" ? ["--zero", "--ramp-middle", "--ramp-end"] : ["--negative", "--zero", "--positive"];
  const scale = html("span", { class: "scale", style: `background: linear-gradient(to right, ${stops.map((stop) => `var(${stop})`)})` });
  const [low, high] = kind === "bits" ? ["0", "maximum of the grid"] : ["\u2212 maximum", "+ maximum magnitude of the grid"];
  return html("p", { class: "note", style: "margin: 0 0 12px" }, low, scale, high, ", square-root scale. Point at a position to read its values.");
}
