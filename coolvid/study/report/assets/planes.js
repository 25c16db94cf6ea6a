// Maps of integers: from the page's data to colours.

const unpacked = new WeakMap();

/** The integers of a packed map: {height, width, steps, values: Int16Array}. */
function unpack(plane) {
  if (!unpacked.has(plane)) unpacked.set(plane, inflate(plane));
  return unpacked.get(plane);
}

async function inflate({ height, width, steps, data }) {
  const packed = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const values = new Int16Array(height * width);
  for (let row = 0; row < height; row += 1) {
    let value = 0;
    for (let i = row * width; i < (row + 1) * width; i += 1) {
      value += bytes[i] | (bytes[height * width + i] << 8);
      values[i] = value;
      value = values[i];
    }
  }
  return { height, width, steps, values };
}

/** Set the canvas to width x height and every pixel i to paint(i) = [r, g, b]. */
function fill(canvas, width, height, paint) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const [r, g, b] = paint(i);
    image.data.set([r, g, b, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const mix = (a, b, t) => a.map((value, i) => value + (b[i] - value) * t);

function extent(values) {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return largest;
}

/** Signed numbers around a neutral zero; the scale is a square root and ends at the largest magnitude. */
async function paintSigned(canvas, plane) {
  const { height, width, values } = await unpack(plane);
  const [zero, negative, positive] = ["--zero", "--negative", "--positive"].map(color);
  const largest = extent(values) || 1;
  const cache = new Map();
  fill(canvas, width, height, (i) => {
    const value = values[i];
    if (!cache.has(value)) cache.set(value, mix(zero, value < 0 ? negative : positive, Math.sqrt(Math.abs(value) / largest)));
    return cache.get(value);
  });
}

/** Numbers from 0 on; the scale is a square root and ends at the largest number. */
async function paintRamp(canvas, plane) {
  const { height, width, values } = await unpack(plane);
  const [zero, middle, end] = ["--zero", "--ramp-middle", "--ramp-end"].map(color);
  const largest = extent(values) || 1;
  const table = Array.from({ length: 256 }, (_, i) => (i < 128 ? mix(zero, middle, i / 128) : mix(middle, end, (i - 128) / 127)));
  fill(canvas, width, height, (i) => table[Math.round(255 * Math.sqrt(Math.max(0, values[i]) / largest))]);
}

/** Numbers from 0 to 1, black to white. */
async function paintGrey(canvas, plane) {
  const { height, width, steps, values } = await unpack(plane);
  fill(canvas, width, height, (i) => Array(3).fill((255 * values[i]) / steps));
}

// Colour wheel of Baker et al., A Database and Evaluation Methodology for Optical Flow, 2011: hues between six corners.
const WHEEL = (() => {
  const corners = [[255, 0, 0, 15], [255, 255, 0, 6], [0, 255, 0, 4], [0, 255, 255, 11], [0, 0, 255, 13], [255, 0, 255, 6]];
  return corners.flatMap(([r, g, b, steps], i) => {
    const next = corners[(i + 1) % corners.length];
    return Array.from({ length: steps }, (_, j) => mix([r, g, b], next.slice(0, 3), j / steps));
  });
})();

/** The colour of a vector (x right, y down) of length 0..1: hue for its direction, white for none. */
function flowColor(x, y) {
  const length = Math.min(1, Math.hypot(x, y));
  const at = ((Math.atan2(-y, -x) / Math.PI + 1) / 2) * (WHEEL.length - 1);
  const first = Math.floor(at);
  const hue = mix(WHEEL[first], WHEEL[(first + 1) % WHEEL.length], at - first);
  return mix([255, 255, 255], hue, length);
}

async function paintFlow(canvas, flow) {
  const [x, y] = await Promise.all([unpack(flow.x), unpack(flow.y)]);
  const scale = 1 / (x.steps * (flow.longest || 1));
  fill(canvas, x.width, x.height, (i) => flowColor(x.values[i] * scale, y.values[i] * scale));
}

/** The legend of paintFlow: the colour at a place is that of the vector from the centre to it. */
function paintWheel(canvas, size) {
  const middle = (size - 1) / 2;
  fill(canvas, size, size, (i) => {
    const x = ((i % size) - middle) / middle;
    const y = (Math.floor(i / size) - middle) / middle;
    return flowColor(x, y);
  });
  const image = canvas.getContext("2d");
  image.globalCompositeOperation = "destination-in";
  image.beginPath();
  image.arc(size / 2, size / 2, size / 2, 0, 2 * Math.PI);
  image.fill();
}
