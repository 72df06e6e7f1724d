// The two figures of a card: a document that Python made, filled from the series of the page.

const EMPTY = { x: [], y: [] };

// A metric with the one of validation that belongs to it: loss and val_loss are shown together.
function basesOf(names) {
  return [...new Set(names.map((name) => name.replace(/^val_/, "")))];
}

// Borders that the eye knows, so that an axis does not move with every point.
function niceRange(low, high, log) {
  if (!(low <= high)) return log ? [0.1, 1] : [0, 1];
  if (log) return [low / 1.15, high * 1.15];
  const span = high - low || Math.abs(high) || 1;
  high += 0.02 * span; // a dot on the newest value is seen whole
  if (low < 0 || low > 0.02 * span) low -= 0.02 * span;
  const rough = span / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= rough), share = low >= 0 && high <= 1.03;
  const from = Math.floor(low / step + 1e-9) * step, up = Math.ceil(high / step - 1e-9) * step;
  const to = share && up > 1 ? 1.02 : up; // an accuracy has no value above 1
  return [from, to > from ? to : from + step];
}

// By which kind of a metric several runs are compared, unless somebody chose: validation where each has it, because the
// losses of a student that is taught and of one that is alone differ in kind. A metric that is no loss says how good a
// model is only by its validation.
function comparedKind(runs, base, chosen) {
  const held = (run) => run.names.includes(`val_${base}`);
  return chosen ?? (runs.length && (/loss$/.test(base) ? runs.every(held) : runs.some(held)) ? "held" : "train");
}

// The name of that curve in a run; a run without it shows what it has.
function comparedName(run, base, kind) {
  const [first, second] = kind === "held" ? [`val_${base}`, base] : [base, `val_${base}`];
  return run.names.includes(first) ? first : second;
}

class Plot {
  // `slots` are the elements of the left and the right figure; `onZoom` is called when the user has zoomed.
  constructor(Bokeh, documents, slots, onZoom) {
    Object.assign(this, { Bokeh, documents, slots, onZoom });
    this.bins = new Map();
    this.zoomed = false;
    this.document = null;
  }

  async embed(kind) {
    this.clear();
    const { roots, document: text } = this.documents[kind];
    const holders = this.slots.map((slot) => slot.appendChild(document.createElement("div")));
    const item = { docid: "only", root_ids: roots, roots: { [roots[0]]: holders[0], [roots[1]]: holders[1] } };
    this.pending = holders;
    const [views] = await this.Bokeh.embed.embed_items({ only: JSON.parse(text) }, [item]);
    const embedded = views.roots[0].model.document;
    if (this.pending !== holders) return this.free(embedded, views); // another one was asked for meanwhile
    [this.document, this.views] = [embedded, views];
    this.kind = kind;
    this.filled = new Map();
    this.steps = this.model("steps");
    this.steps.change.connect(() => this.moved());
    this.look();
  }

  clear() {
    this.pending = null;
    if (this.document) this.free(this.document, this.views);
    this.document = this.views = null;
    for (const slot of this.slots) slot.replaceChildren();
  }

  // Clearing alone leaves the document in Bokeh's list, and in its index the view for its notifications.
  free(document, views) {
    document.clear();
    views.clear();
    this.Bokeh.documents.splice(this.Bokeh.documents.indexOf(document), 1);
  }

  model(name) {
    return this.document.get_model_by_name(name);
  }

  moved() {
    if (this.ours) return;
    this.zoomed = true;
    this.onZoom();
  }

  // Colours of the page's theme, from the card's style.
  look() {
    this.colors ??= {};
    // A card that has just left the page has no style; the next look is taken when it is back.
    if (!this.document || !this.slots[0].isConnected) return;
    const style = getComputedStyle(this.slots[0]), color = (name) => style.getPropertyValue(`--h3-${name}`).trim();
    this.colors = Object.fromEntries(["train", "held", "good", "mark", "faint"].map((name) => [name, color(name)]));
    for (const side of ["left", "right"]) {
      const figure = this.model(side);
      for (const axis of [...figure.below, ...figure.left]) axis.major_label_text_color = color("quiet");
      // Of the two grids only that of the values.
      for (const grid of figure.center.filter((model) => model.dimension === 1)) grid.grid_line_color = color("line");
      const paint = (name, key) => (this.model(`${side}.${name}.line`).glyph.line_color = { value: color(key) });
      paint("raw", "train"), paint("smooth", "train"), paint("held", "held"), paint("past", "faint");
      const dot = this.model(`${side}.newest.dot`).glyph;
      dot.fill_color = dot.line_color = { value: color("held") };
    }
    this.model("left.marks.text").glyph.text_color = { value: color("text") };
  }

  // Draw `runs`; `sides` says which metric each figure shows (null: none), `past` is an earlier run's curves.
  draw(runs, sides, past, weight, kinds) {
    if (!this.document) return;
    this.ours = true;
    if (!this.zoomed) this.steps.setv(this.extent(runs));
    const { start, end } = this.steps;
    const view = { past, weight, start, end };
    sides.forEach((base, index) => base && this.side(["left", "right"][index], runs, base, kinds[index], view));
    this.marks(runs, start, end);
    this.ours = false;
  }

  // All steps, with room that is filled before the axis moves: as long as an axis stands, a figure without news is not
  // painted again, and a curve grows rather than shrinks.
  extent(runs) {
    let [start, end] = [Infinity, -Infinity];
    for (const run of runs) {
      for (const { x, size } of run.series.values()) {
        if (size) [start, end] = [Math.min(start, x[0]), Math.max(end, x[size - 1])];
      }
    }
    if (!(end > start)) return { start: 0, end: Math.max(1, 2 * end) }; // a single point stands in the middle
    start = start < 0.1 * end ? 0 : start;
    const room = 2 ** Math.floor(Math.log2((end - start) / 32));
    return { start, end: start + (Math.floor((end - start) / room) + 1) * room };
  }

  // Fill a source, unless it holds this already: `version` is made of all that its points depend on.
  fill(name, version, points) {
    if (this.filled.get(name) === version) return;
    this.filled.set(name, version);
    this.model(name).data = points();
  }

  side(side, runs, base, kind, { past, weight, start, end }) {
    const seen = [], single = []; // values that the axis has to reach; curves of one point, which are no lines
    const put = (name, bins, points, bounds = (values) => values) => {
      this.fill(`${side}.${name}`, bins ? `${bins.version} ${weight}` : "", () => (bins ? points() : EMPTY));
      for (const value of bounds(this.model(`${side}.${name}`).data.y)) if (Number.isFinite(value)) seen.push(value);
    };
    if (runs.length === 1) {
      const train = this.visible(runs[0], base, start, end), held = this.visible(runs[0], `val_${base}`, start, end);
      put("raw", train, () => train.extremes(), middle);
      // The extremes of many points are a band; it lies fainter behind the line than single points do.
      const alpha = train?.power ? 0.16 : 0.3, line = this.model(`${side}.raw.line`).glyph;
      if (line.line_alpha.value !== alpha) line.line_alpha = { value: alpha };
      put("smooth", train, () => train.smooth(weight));
      put("held", held, () => held.extremes());
      put("newest", held, () => held.newest());
      if (train?.series.size === 1) single.push([train, this.colors.train]);
      this.before(side, base, past, Boolean(train), end, seen);
    } else {
      const compared = comparedKind(runs, base, kind);
      runs.forEach((run, index) => {
        const name = comparedName(run, base, compared), bins = this.visible(run, name, start, end);
        put(`run${index}`, bins, () => bins.smooth(name === base ? weight : 0));
        if (bins?.series.size === 1) single.push([bins, this.model(`${side}.run${index}.line`).glyph.line_color.value]);
      });
    }
    const dots = single.map(([{ series }, color]) => ({ x: series.x[0], y: series.y[0], color }));
    const column = (name) => dots.map((dot) => dot[name]);
    this.fill(`${side}.single`, JSON.stringify(dots), () => ({ x: column("x"), y: column("y"), color: column("color") }));
    const log = this.kind === "log", known = log ? seen.filter((value) => value > 0) : seen;
    const [low, high] = niceRange(Math.min(...known), Math.max(...known), log);
    this.model(`${side}.values`).setv({ start: low, end: high });
  }

  // The earlier run of the same name, as far as this one goes in its values.
  before(side, base, past, trained, end, seen) {
    const curves = past?.series ?? {}, curve = trained ? curves[base] : (curves[`val_${base}`] ?? curves[base]);
    const points = curve ? { x: curve.x, y: curve.y.map((value) => value ?? NaN) } : EMPTY;
    this.fill(`${side}.past`, `${base} ${past?.name} ${trained}`, () => points);
    points.y.forEach((value, index) => points.x[index] <= end && Number.isFinite(value) && seen.push(value));
  }

  // The bins of a metric in sight, null where it has no points.
  visible(run, name, start, end) {
    const series = run.points(name);
    if (!series?.size) return null;
    if (!this.bins.has(series)) this.bins.set(series, new Bins(series));
    const bins = this.bins.get(series);
    // One more on either side, so that a line enters and leaves the figure.
    // More bins than pixels only cost time.
    const room = Math.max(200, this.slots[0].clientWidth);
    bins.cover(Math.max(0, series.find(start) - 1), Math.min(series.size, series.find(end) + 2), room);
    return bins;
  }

  marks(runs, start, end) {
    const marks = runs.length === 1 ? runs[0].marks : [], width = this.slots[0].clientWidth - 58;
    const version = JSON.stringify([marks, start, end, width, this.colors]);
    this.fill("left.marks", version, () => this.marked(marks, start, end, width));
  }

  marked(marks, start, end, width) {
    const color = { set: this.colors.mark, snapshot: this.colors.good, attempt: this.colors.faint };
    const shape = { set: "circle", snapshot: "square", attempt: "diamond" };
    // A label that would run into the next one is left out; its mark stays.
    const place = (step) => ((step - start) / (end - start)) * width;
    const text = marks.map(({ step, text }, index) => {
      const next = marks.slice(index + 1).find((mark) => mark.text);
      return place(step) + 12 + 6.2 * text.length > (next ? place(next.step) : width) ? "" : text;
    });
    return {
      x: marks.map((mark) => mark.step),
      color: marks.map((mark) => color[mark.kind]),
      shape: marks.map((mark) => shape[mark.kind]),
      text,
    };
  }
}

// The values without the outermost hundredth on either side: one wild batch must not flatten a curve.
function middle(values) {
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  const cut = Math.floor(sorted.length / 100);
  return sorted.length ? [sorted[cut], sorted[sorted.length - 1 - cut]] : [];
}
