// Frames side by side: prediction structure, bits by part, and quality, over one axis.

const TIMELINE = { page: 120, gutter: 52, narrow: 22, wide: 130, level: 40, title: 20, radius: 10, bars: 130, curve: 76 };
const timeline = { first: 0, width: 0 };

function drawTimeline(frame) {
  const place = frames.indexOf(frame);
  if (place < timeline.first || place >= timeline.first + TIMELINE.page) timeline.first = place - (place % TIMELINE.page);
  const part = frames.slice(timeline.first, timeline.first + TIMELINE.page);
  const available = Math.max(160, byId("timeline").clientWidth - TIMELINE.gutter);
  const column = Math.max(TIMELINE.narrow, Math.min(TIMELINE.wide, available / part.length));
  const sheet = newSheet(part, column, place - timeline.first);
  drawStructure(sheet, frame);
  drawBars(sheet);
  drawCurve(sheet, "PSNR, dB", (each) => each.psnr_db, 2);
  drawCurve(sheet, "SSIM", (each) => each.ssim, 4);
  drawColumns(sheet);
  showTimeline(sheet);
  showPager(part);
}

/** Two drawings of equal height: the axis is fixed while the plot scrolls. `y` is the top of the next row. */
function newSheet(part, column, place) {
  const plot = svg("svg", { role: "img", "aria-label": "Frames: prediction structure, bits by part and quality" });
  const axis = svg("svg", { class: "axis", width: TIMELINE.gutter, "aria-hidden": "true" });
  const places = new Map(part.map((frame, i) => [frame.index, i]));
  const centre = (i) => (i + 0.5) * column;
  return { part, column, place, plot, axis, places, centre, width: column * part.length, y: 0 };
}

function startRow(sheet, title) {
  sheet.axis.append(svg("text", { class: "title", x: 0, y: sheet.y + 14 }, title));
  sheet.y += TIMELINE.title + 4;
}

function drawStructure(sheet, frame) {
  startRow(sheet, "Structure");
  const deepest = Math.max(...sheet.part.map((each) => each.depth));
  const top = sheet.y + TIMELINE.radius + 2;
  const at = (each) => [sheet.centre(sheet.places.get(each.index)), top + each.depth * TIMELINE.level];
  sheet.plot.append(arrowHeads());
  const later = [];
  for (const each of sheet.part) {
    const is = each === frame ? " chosen" : "";
    const into = is ? later : sheet.plot;
    for (const index of each.references) {
      if (sheet.places.has(index)) into[is ? "push" : "append"](arrow(at(frameOf.get(index)), at(each), "arrow" + is, 0));
    }
    if (each.predictor !== null && sheet.places.has(each.predictor)) {
      into[is ? "push" : "append"](arrow(at(frameOf.get(each.predictor)), at(each), "inherit" + is, 0.22));
    }
  }
  sheet.plot.append(...later, ...sheet.part.map((each) => node(each, at(each), each === frame)));
  sheet.y = top + deepest * TIMELINE.level + TIMELINE.radius + 26;
}

function arrowHeads() {
  const head = (id, fill) =>
    svg("marker", { id, viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 6, markerHeight: 6, orient: "auto" },
      svg("path", { d: "M0 0 L6 3 L0 6 z", style: `fill: var(${fill})` }));
  return svg("defs", {}, head("head-arrow", "--muted"), head("head-chosen", "--accent"), head("head-inherit", "--inherit"));
}

/** An arrow between two nodes; bend: how far the middle sags, as a share of the length. */
function arrow([x0, y0], [x1, y1], kind, bend) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  const middle = [(x0 + x1) / 2, (y0 + y1) / 2 + bend * Math.min(length, 120) * 2];
  const trim = ([x, y]) => {
    const distance = Math.hypot(middle[0] - x, middle[1] - y) || 1;
    const share = (TIMELINE.radius + 2) / distance;
    return [x + (middle[0] - x) * share, y + (middle[1] - y) * share].map((value) => value.toFixed(1));
  };
  const head = kind.startsWith("inherit") ? "head-inherit" : kind.includes("chosen") ? "head-chosen" : "head-arrow";
  const d = `M${trim([x0, y0])} Q${middle.map((value) => value.toFixed(1))} ${trim([x1, y1])}`;
  return svg("path", { class: kind, d, "marker-end": `url(#${head})` });
}

function node(frame, [x, y], isChosen) {
  const kind = (frame.type === "B" ? "" : " anchor");
  return svg("g", {},
    svg("circle", { class: "node" + kind + (isChosen ? " chosen" : ""), cx: x, cy: y, r: TIMELINE.radius }),
    svg("text", { class: "node-type" + kind, x, y: y + 4 }, frame.type));
}

function drawBars(sheet) {
  const asShare = byId("bars").value === "share";
  const totals = sheet.part.map((frame) => 8 * frame.bytes);
  const high = asShare ? 100 : Math.max(...totals, 1);
  const inThousands = !asShare && high >= 4000;
  startRow(sheet, asShare ? "Bits, % of the frame" : inThousands ? "Bits, thousands" : "Bits");
  const scale = TIMELINE.bars / high;
  drawAxis(sheet, TIMELINE.bars, ticks(0, high, 4), (value) => value * scale, (value) => whole(inThousands ? value / 1000 : value));
  const bottom = sheet.y + TIMELINE.bars;
  const bar = Math.min(44, Math.max(4, sheet.column * 0.62));
  sheet.part.forEach((frame, i) => {
    let y = bottom;
    bitsOf(frame).forEach((bits, number) => {
      const height = (asShare ? (100 * bits) / totals[i] : bits) * scale;
      y -= height;
      if (bits) {
        const style = `fill: var(--${PARTS[number].key})`;
        sheet.plot.append(svg("rect", { class: "bar", x: sheet.centre(i) - bar / 2, y, width: bar, height, style }));
      }
    });
  });
  sheet.y = bottom + 14;
}

function drawAxis(sheet, height, values, up, name) {
  const bottom = sheet.y + height;
  for (const value of values) {
    const y = Math.round(bottom - up(value)) + 0.5;
    sheet.plot.append(svg("line", { class: "grid", x1: 0, x2: sheet.width, y1: y, y2: y }));
    sheet.axis.append(svg("text", { x: TIMELINE.gutter - 8, y: y + 4, "text-anchor": "end" }, name(value)));
  }
}

function drawCurve(sheet, title, value, digits) {
  const found = sheet.part.map(value);
  const numbers = found.filter(measured);
  if (!numbers.length) return;
  startRow(sheet, title);
  const spread = Math.max(...numbers) - Math.min(...numbers) || 10 ** -digits * 20;
  const [low, high] = [Math.min(...numbers) - spread * 0.1, Math.max(...numbers) + spread * 0.1];
  const up = (each) => ((each - low) / (high - low)) * TIMELINE.curve;
  drawAxis(sheet, TIMELINE.curve, ticks(low, high, 3), up, alike(ticks(low, high, 3)));
  const points = found.map((each, i) => (measured(each) ? [sheet.centre(i), sheet.y + TIMELINE.curve - up(each)] : null));
  const line = points.filter(Boolean).map((point) => point.map((each) => each.toFixed(1)).join(",")).join(" ");
  sheet.plot.append(svg("polyline", { class: "curve", points: line }));
  points.forEach((point, i) => {
    if (point) sheet.plot.append(svg("circle", { class: "dot" + (i === sheet.place ? " chosen" : ""), cx: point[0], cy: point[1], r: i === sheet.place ? 4 : 2.5 }));
  });
  sheet.y += TIMELINE.curve + 14;
}

/** Frame numbers at the bottom, the band of the chosen frame in the background, and click areas on top. */
function drawColumns(sheet) {
  const every = Math.ceil(34 / sheet.column);
  sheet.axis.append(svg("text", { x: TIMELINE.gutter - 8, y: sheet.y + 12, "text-anchor": "end" }, "frame"));
  sheet.part.forEach((frame, i) => {
    if (i % every === 0 || i === sheet.place) {
      const skip = i !== sheet.place && Math.abs(i - sheet.place) < every;
      if (!skip) sheet.plot.append(svg("text", { class: i === sheet.place ? "strong" : "", x: sheet.centre(i), y: sheet.y + 12, "text-anchor": "middle" }, String(frame.index)));
    }
  });
  const height = sheet.y + 18;
  sheet.plot.prepend(svg("rect", { class: "band", x: sheet.place * sheet.column, y: 0, width: sheet.column, height }));
  sheet.part.forEach((frame, i) => {
    const words = `frame ${frame.index}, ${frame.type}, ${whole(frame.bytes)} bytes` + (measured(frame.psnr_db) ? `, ${decibels(frame.psnr_db)}` : "");
    const hit = { class: "hit", x: i * sheet.column, y: 0, width: sheet.column, height, "data-frame": frame.index, onclick: () => choose(frame.index) };
    sheet.plot.append(svg("rect", hit, svg("title", {}, words)));
  });
  for (const [drawing, width] of [[sheet.plot, sheet.width], [sheet.axis, TIMELINE.gutter]]) {
    build(drawing, { width, height, viewBox: `0 0 ${width} ${height}` }, []);
  }
}

function showTimeline(sheet) {
  const home = byId("timeline");
  const before = home.querySelector(".scroller");
  const hadFocus = before !== null && document.activeElement === before;
  const label = "Frames; use the arrow keys to choose one";
  const scroller = html("div", { class: "scroller", tabindex: 0, role: "group", "aria-label": label, onkeydown: chooseByKey }, sheet.plot);
  const left = before?.scrollLeft ?? 0;
  home.replaceChildren(sheet.axis, scroller);
  const middle = sheet.centre(sheet.place);
  const isSeen = middle > left && middle < left + scroller.clientWidth;
  scroller.scrollLeft = isSeen ? left : middle - scroller.clientWidth / 2;
  if (hadFocus) scroller.focus({ preventScroll: true });
}

function chooseByKey(event) {
  const last = frames.length - 1;
  const target = { ArrowLeft: neighbour(-1), ArrowRight: neighbour(1), Home: frames[0].index, End: frames[last].index }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  choose(target);
}

function showPager(part) {
  byId("pager").hidden = frames.length <= TIMELINE.page;
  byId("range").textContent = `frames ${part[0].index}–${part[part.length - 1].index} of ${frames.length}`;
  byId("earlier").disabled = timeline.first === 0;
  byId("later").disabled = timeline.first + TIMELINE.page >= frames.length;
}

function showLegend() {
  const parts = PARTS.filter((_, i) => frames.some((frame) => bitsOf(frame)[i]));
  const lines = [["arrow", "from reference to predicted frame"]];
  if (frames.some((frame) => frame.predictor !== null && frame.predictor >= 0)) lines.push(["inherit", "networks predicted from another frame"]);
  const drawn = frames.some((frame) => frame.references.length) ? lines : [];
  byId("legend").replaceChildren(
    ...drawn.map(([kind, name]) =>
      html("li", {}, svg("svg", { width: 30, height: 10, "aria-hidden": "true" },
        svg("path", { class: `${kind} chosen`, d: "M1 5 H24", "marker-end": `url(#head-${kind === "arrow" ? "chosen" : kind})` })), name)),
    ...parts.map((part) => html("li", {}, html("span", { class: "swatch", style: `background: var(--${part.key})` }), part.name)));
}

function showDetails(frame) {
  const total = 8 * frame.bytes;
  const facts = [
    ["coding index", String(frame.order)],
    ["predicted from", frame.references.length ? `frame${frame.references.length > 1 ? "s" : ""} ${frame.references.join(" and ")}` : "nothing"],
    ["networks from", networksFrom(frame)],
    ["size", `${whole(frame.bytes)} bytes`],
    ["rate", `${(total / (report.width * report.height)).toFixed(4)} bpp`],
  ];
  if (frame.psnr_db !== null) {
    facts.push(["PSNR", decibels(frame.psnr_db)]);
    facts.push([`${[...report.planes].join(" / ")}`, frame.psnr_planes_db.map((each) => (measured(each) ? each.toFixed(2) : each)).join(" / ") + " dB"]);
    facts.push(["SSIM", frame.ssim.toFixed(4)]);
  }
  byId("details").replaceChildren(
    html("h3", {}, `Frame ${frame.index}, ${frame.type}`),
    html("dl", {}, ...facts.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)])),
    html("table", {}, html("thead", {}, html("tr", {}, ...["part", "bits", "share"].map((name) => html("th", {}, name)))),
      html("tbody", {}, ...partRows(frame, total))));
}

function networksFrom(frame) {
  if (frame.is_copy) return "none: a copy of its references";
  if (frame.predictor === null) return "not predicted";
  return frame.predictor < 0 ? "the prior" : `frame ${frame.predictor}`;
}

function partRows(frame, total) {
  const sums = bitsOf(frame);
  return PARTS.flatMap((part, i) => {
    const inside = Object.keys(frame.bits).filter((name) => part.holds(name));
    if (!inside.length) return [];
    const swatch = html("span", { class: "swatch", style: `background: var(--${part.key})` });
    const share = (bits) => `${((100 * bits) / total).toFixed(1)} %`;
    const row = html("tr", {}, html("td", {}, swatch, part.name), html("td", {}, whole(sums[i])), html("td", {}, share(sums[i])));
    const modules = part.key.endsWith("networks") ? inside : [];
    return [row, ...modules.filter((name) => frame.bits[name] || frame.unchanged.includes(name)).map((name) => {
      const isTaken = frame.unchanged.includes(name);
      const cells = isTaken ? [html("td", { class: "unchanged", colspan: 2 }, "unchanged")] : [html("td", {}, whole(frame.bits[name])), html("td", {}, share(frame.bits[name]))];
      return html("tr", { class: "module" }, html("td", {}, name.split(".")[1]), ...cells);
    })];
  });
}
