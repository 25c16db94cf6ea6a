// Quality over rate: the curves of a comparison, and this stream.

const METRICS = { psnr_db: ["PSNR, dB", 2], ssim: ["SSIM", 4], ms_ssim: ["MS-SSIM", 4], vmaf: ["VMAF", 2] };
const CURVE_COLORS = [
  "light-dark(#0a5cb8, #76b4fb)", "light-dark(#c2570c, #f0a05a)", "light-dark(#2a7a3b, #7cc98b)", "light-dark(#8b3fa8, #d29be8)",
  "light-dark(#8a6d00, #d9bd55)", "light-dark(#a8324a, #f08ca0)", "light-dark(#0b7a80, #5fd0d6)", "light-dark(#555f69, #aeb7c0)",
];
const SHAPES = [
  "M0 -4.5 A4.5 4.5 0 1 1 0 4.5 A4.5 4.5 0 1 1 0 -4.5", "M-4 -4 H4 V4 H-4 z", "M0 -5 L5 4 H-5 z", "M0 -5.5 L5.5 0 L0 5.5 L-5.5 0 z",
  "M0 5 L5 -4 H-5 z", "M-5 -2 H-2 V-5 H2 V-2 H5 V2 H2 V5 H-2 V2 H-5 z", "M-5 0 L-2.5 -4.5 H2.5 L5 0 L2.5 4.5 H-2.5 z", "M-5 -3 H5 V3 H-5 z",
];

/** Every curve with its colour and marker; this stream, if its quality is known, is a curve of one point. */
function curvesToDraw() {
  const given = report.curves.curves.map((curve) => ({ name: curve.codec, points: curve.points }));
  if (measured(report.psnr_db)) given.push({ name: "this stream", points: [{ bpp: report.bpp, psnr_db: report.psnr_db, ssim: report.ssim }], isOwn: true });
  return given.map((curve, i) => ({ ...curve, color: CURVE_COLORS[i % 8], shape: SHAPES[i % 8] }));
}

function showCurves() {
  byId("curves").hidden = !report.curves;
  if (!report.curves) return;
  const curves = curvesToDraw();
  const metrics = Object.keys(METRICS).filter((key) => curves.some((curve) => !curve.isOwn && curve.points.some((point) => measured(point[key]))));
  offer(byId("metric"), metrics.map((key) => [key, METRICS[key][0].replace(", dB", "")]), metrics[0]);
  byId("metric-field").hidden = metrics.length < 2;
  const metric = byId("metric").value;
  const home = html("div", { class: "pair-columns" });
  byId("curves-plot").replaceChildren(home, pointTable(curves, metrics));
  const plot = html("div", {});
  home.append(plot, html("div", {}, curveLegend(curves, metric), bdTable()));
  plot.append(curvePlot(curves, metric, plot.clientWidth));
}

function curvePlot(curves, metric, width) {
  const height = Math.max(260, Math.min(400, width * 0.55));
  const [left, right, top, bottom] = [52, 12, 12, 44];
  const all = curves.flatMap((curve) => curve.points.filter((point) => measured(point[metric])));
  const logs = all.map((point) => Math.log10(point.bpp));
  const [x0, x1] = padded(Math.min(...logs), Math.max(...logs));
  const [y0, y1] = padded(Math.min(...all.map((point) => point[metric])), Math.max(...all.map((point) => point[metric])));
  const x = (rate) => left + ((Math.log10(rate) - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${METRICS[metric][0]} over bits per pixel` });
  for (const rate of rateTicks(x0, x1)) {
    drawing.append(svg("line", { class: "grid", x1: x(rate), x2: x(rate), y1: top, y2: height - bottom }),
      svg("text", { x: x(rate), y: height - bottom + 16, "text-anchor": "middle" }, String(rate)));
  }
  const values = ticks(y0, y1, 6);
  for (const value of values) {
    drawing.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, alike(values)(value)));
  }
  drawing.append(svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, "bits per pixel (logarithmic)"));
  for (const curve of curves) drawing.append(drawnCurve(curve, metric, x, y));
  return drawing;
}

const padded = (low, high) => {
  const more = (high - low || Math.abs(high) * 0.1 || 1) * 0.06;
  return [low - more, high + more];
};

/** 1, 2 and 5 times powers of ten between two logarithms; over a wide range, only powers of ten. */
function rateTicks(low, high) {
  const factors = high - low > 2.5 ? [1] : [1, 2, 5];
  const out = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const factor of factors) {
      const at = power + Math.log10(factor);
      if (at >= low && at <= high) out.push(Number((factor * 10 ** power).toPrecision(3)));
    }
  }
  return out;
}

function drawnCurve(curve, metric, x, y) {
  const points = curve.points.filter((point) => measured(point[metric]));
  const line = points.map((point) => `${x(point.bpp).toFixed(1)},${y(point[metric]).toFixed(1)}`).join(" ");
  const marks = points.map((point) => {
    const words = `${curve.name} ${point.setting ?? ""}: ${point.bpp.toPrecision(4)} bpp, ${point[metric].toFixed(METRICS[metric][1])}`;
    const place = `translate(${x(point.bpp).toFixed(1)} ${y(point[metric]).toFixed(1)})`;
    const style = curve.isOwn ? `fill: var(--surface); stroke: ${curve.color}; stroke-width: 2.5` : `fill: ${curve.color}`;
    return svg("path", { class: "mark", d: curve.shape, transform: place, style }, svg("title", {}, words));
  });
  return svg("g", {}, svg("polyline", { class: "curve-line", points: line, style: `stroke: ${curve.color}` }), ...marks);
}

function curveLegend(curves, metric) {
  const drawn = curves.filter((curve) => curve.points.some((point) => measured(point[metric])));
  return html("ul", { class: "legend", style: "flex-direction: column; margin: 0 0 16px" }, ...drawn.map((curve) => {
    const style = curve.isOwn ? `fill: var(--surface); stroke: ${curve.color}; stroke-width: 2` : `fill: ${curve.color}`;
    return html("li", {}, svg("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, svg("path", { d: curve.shape, style })), curve.name);
  }));
}

function bdTable() {
  const rates = report.curves.bd_rates;
  if (!rates.length) return null;
  const rows = rates.map(({ codec, anchor, percent }) => html("tr", {}, html("td", {}, codec), html("td", {}, anchor),
    html("td", {}, measured(percent) ? signed((percent > 0 ? "+" : "") + percent.toFixed(1)) + " %" : "–")));
  const head = html("tr", {}, ...["BD-rate of", "against", "bits"].map((name) => html("th", {}, name)));
  return html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows));
}

function pointTable(curves, metrics) {
  const head = ["codec", "setting", "bytes", "bpp", ...metrics.map((key) => METRICS[key][0])];
  const rows = curves.flatMap((curve) => curve.points.map((point) => html("tr", {}, ...[
    curve.name, point.setting ?? "", measured(point.bytes) ? whole(point.bytes) : "–", point.bpp.toFixed(4),
    ...metrics.map((key) => (measured(point[key]) ? point[key].toFixed(METRICS[key][1]) : "–")),
  ].map((cell) => html("td", {}, cell)))));
  return html("details", {}, html("summary", {}, "All points as a table"),
    html("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Table of points, scrollable" },
      html("table", { class: "figures" }, html("thead", {}, html("tr", {}, ...head.map((name) => html("th", {}, name)))), html("tbody", {}, ...rows))));
}
