// What the page holds of a run: every point in typed arrays, and bins of them that are cheap to draw.

// A curve is drawn from at most this many bins: BokehJS paints 2,000 points in a sixtieth of a second, 1 M never.
const BINS = 1000;

class Series {
  constructor() {
    this.size = 0;
    this.x = new Float64Array(1024);
    this.y = new Float64Array(1024);
    this.rewritten = 0; // how often points were replaced: whoever has derived something starts again
  }

  // Points from index `start` on. False where some before it are missing: the page has to ask for them.
  put(start, x, y) {
    if (start > this.size) return false;
    if (start < this.size) this.rewritten += 1;
    const size = start + x.length;
    if (size > this.x.length) [this.x, this.y] = [this.grown(this.x, size), this.grown(this.y, size)];
    this.x.set(x, start);
    this.y.set(y, start);
    this.size = size;
    return true;
  }

  grown(array, size) {
    const larger = new Float64Array(Math.max(size, 2 * array.length));
    larger.set(array.subarray(0, this.size));
    return larger;
  }

  // The index of the first point at or after a step.
  find(step) {
    let [low, high] = [0, this.size];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.x[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

// Runs of 2^k points of a series, each with its smallest, largest and mean value. Their borders stay where they are
// while points arrive, so that the finished part of a curve does not flicker and only the last bin is computed anew.
class Bins {
  constructor(series) {
    this.series = series;
    this.id = Bins.made = (Bins.made ?? 0) + 1;
    this.first = new Int32Array(BINS + 2); // indices of the lower and the upper extreme, in the order of the steps
    this.second = new Int32Array(BINS + 2);
    this.mean = new Float64Array(BINS + 2);
    this.at = new Float64Array(BINS + 2);
    this.reset(0, 0);
  }

  reset(power, begin) {
    [this.power, this.begin, this.full, this.count, this.rewritten] = [power, begin, 0, 0, this.series.rewritten];
  }

  // Cover the points with begin <= index < end, by as many bins as a figure has room for.
  cover(begin, end, room = BINS) {
    let power = 0;
    while ((end - begin) / 2 ** power > Math.min(room, BINS)) power += 1;
    begin -= begin % 2 ** power;
    const moved = power !== this.power || begin !== this.begin;
    if (moved || this.rewritten !== this.series.rewritten) this.reset(power, begin);
    const width = 2 ** power;
    this.end = end;
    this.full = Math.min(this.full, Math.floor((end - begin) / width));
    for (let bin = this.full; begin + bin * width < end; bin++) {
      this.fill(bin, begin + bin * width, Math.min(begin + (bin + 1) * width, end));
      this.count = bin + 1;
    }
    this.count = Math.ceil((end - begin) / width);
    this.full = Math.floor((end - begin) / width);
  }

  fill(bin, from, to) {
    const { x, y } = this.series;
    let [low, high, sum, known] = [from, from, 0, 0];
    for (let i = from; i < to; i++) {
      const value = y[i];
      if (!Number.isFinite(value)) continue;
      if (known === 0) low = high = i;
      else if (value < y[low]) low = i;
      else if (value > y[high]) high = i;
      sum += value;
      known += 1;
    }
    this.first[bin] = Math.min(low, high);
    this.second[bin] = Math.max(low, high);
    this.mean[bin] = known ? sum / known : NaN;
    this.at[bin] = (x[from] + x[to - 1]) / 2;
  }

  // Changes with what is covered.
  get version() {
    return `${this.id} ${this.series.rewritten} ${this.begin} ${this.end} ${this.power}`;
  }

  // The last point.
  newest() {
    const last = this.series.size - 1;
    return { x: this.series.x.slice(last, last + 1), y: this.series.y.slice(last, last + 1) };
  }

  // The extremes as a line: what an eye sees of all points.
  extremes() {
    const each = this.power === 0 ? 1 : 2;
    const x = new Float64Array(each * this.count), y = new Float64Array(each * this.count);
    for (let bin = 0; bin < this.count; bin++) {
      x[each * bin] = this.series.x[this.first[bin]];
      y[each * bin] = this.series.y[this.first[bin]];
      if (each === 2) {
        x[2 * bin + 1] = this.series.x[this.second[bin]];
        y[2 * bin + 1] = this.series.y[this.second[bin]];
      }
    }
    return { x, y };
  }

  // The exponential mean of the bins, unbiased at its start. Smoothing what is seen, not what was recorded, looks the
  // same at a thousand points and at a million.
  smooth(weight) {
    const y = new Float64Array(this.count);
    let mean = 0, norm = 0;
    for (let bin = 0; bin < this.count; bin++) {
      if (Number.isFinite(this.mean[bin])) {
        mean = weight * mean + (1 - weight) * this.mean[bin];
        norm = weight * norm + (1 - weight);
      }
      y[bin] = norm && Number.isFinite(this.mean[bin]) ? mean / norm : NaN;
    }
    return { x: this.at.slice(0, this.count), y };
  }
}

// One run as the page knows it.
class Run {
  constructor() {
    this.series = new Map();
    this.head = null;
    this.marks = [];
    this.settings = [];
    this.verbs = new Set();
  }

  // Take in a part of a message; `data` are its points. False where something before them is missing.
  take(part, data) {
    let offset = 0, whole = true;
    for (const { name, start, size } of part.series) {
      const count = size - start;
      if (!this.series.has(name)) this.series.set(name, new Series());
      const x = data.subarray(offset, offset + count), y = data.subarray(offset + count, offset + 2 * count);
      whole = this.series.get(name).put(start, x, y) && whole;
      offset += 2 * count;
    }
    this.head = part.head;
    this.marks = part.marks;
    if (part.settings) [this.settings, this.verbs] = [part.settings, new Set(part.verbs)];
    return whole;
  }

  points(name) {
    return this.series.get(name);
  }

  // The last step that any curve has.
  get newest() {
    return Math.max(0, ...[...this.series.values()].map(({ x, size }) => (size ? x[size - 1] : 0)));
  }

  get names() {
    return [...this.series.keys()].filter((name) => this.series.get(name).size);
  }
}
