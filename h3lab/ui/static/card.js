// The card of a run: headline, hair of progress, two figures, controls, and the code that does what was clicked.

const STATES = {
  queued: ["waiting", "wait"], starting: ["starting", "wait"], training: ["training", "go"], paused: ["paused", "hold"],
  lost: ["coming back", "hold"], finished: ["finished", "done"], stopped: ["stopped", "done"],
  failed: ["failed", "bad"],
};
const OVER = new Set(["finished", "stopped", "failed"]);
const VERBS = { pause: "❚❚ Pause", resume: "▶ Resume", stop: "■ Stop", snapshot: "⤓ Snapshot" };

function element(tag, name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (name) made.className = `h3-${name}`;
  made.append(...children);
  return made;
}

// The text of an element, changed in place and only where it differs: replacing nodes ten times a second would have the
// whole page look after its styles and whoever observes it for nodes.
function write(target, text) {
  if (!target.firstChild) target.append(document.createTextNode(""));
  if (target.firstChild.data !== text) target.firstChild.data = text;
}

function short(value, digits = 3) {
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(digits - 1);
  return value.toPrecision(Math.abs(value) >= 100 ? Math.ceil(Math.log10(Math.abs(value) + 1)) : digits);
}

function duration(seconds) {
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)}`;
  if (s < 172800) return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return `${Math.floor(s / 86400)} days`;
}

class Card {
  // `board` is what the page knows: its runs, and `ask(verb, values)` for the kernel.
  constructor(board, holder) {
    this.board = board;
    this.holder = holder;
    this.weight = 0.9;
    this.picks = [null, null]; // what the user chose to see left and right
    this.kinds = [null, null]; // and of several runs, training or validation
    this.painted = { step: 0, at: 0 };
    this.build();
    holder.replaceChildren(this.root);
    this.root.h3lab = this; // for tests and the curious: document.querySelector(".h3lab-card").h3lab
    this.resized = new ResizeObserver(() => this.request());
    this.resized.observe(this.root);
    this.update();
  }

  dispose() {
    this.resized.disconnect();
    this.plot?.clear();
    this.root.remove();
  }

  build() {
    const many = this.board.runs.length > 1;
    this.heads = this.board.runs.map((_, index) => new Head(many ? index : null));
    this.fill = element("div", "fill");
    this.trouble = element("div", "trouble", { hidden: true });
    this.cause = new Cause();
    this.titles = [0, 1].map((side) => new Title((base, kind) => this.pick(side, base, kind)));
    this.slots = [element("div", "slot"), element("div", "slot")];
    this.figures = this.slots.map((slot, index) => element("div", "figure", {}, this.titles[index].root, slot));
    this.empty = element("div", "empty", {}, "waiting for the first record");
    this.plots = element("div", "plots", {}, ...this.figures);
    this.controls = many ? null : new Controls(this.board);
    this.view = this.buildView();
    this.code = element("div", "code");
    this.foot = element("div", "foot", {}, this.code, this.view);
    this.root = element(
      "div", "card", {},
      element("div", many ? "many" : "one", {}, ...this.heads.map((head) => head.root)),
      element("div", "hair", { hidden: many }, this.fill), this.trouble, this.cause.root, this.empty, this.plots,
      ...(this.controls ? [this.controls.root] : []), this.foot,
    );
    this.root.classList.add("h3lab-card");
    this.root.dataset.lmSuppressShortcuts = "true"; // keys typed here are no commands of the notebook
    for (const slot of this.slots) slot.addEventListener("dblclick", () => this.whole());
  }

  buildView() {
    const smooth = element("input", "range", { type: "range", min: 0, max: 0.99, step: 0.01, value: this.weight });
    smooth.addEventListener("input", () => {
      this.weight = Number(smooth.value);
      this.request();
    });
    this.log = element("input", "check", { type: "checkbox" });
    this.log.addEventListener("change", () => this.embed());
    this.all = element("button", "link", { textContent: "show all", hidden: true, title: "or double-click a curve" });
    this.all.addEventListener("click", () => this.whole());
    return element(
      "div", "view", {}, this.all,
      element("label", "label", { title: "how far the line is smoothed" }, "smooth", smooth),
      element("label", "label", { title: "logarithmic value axis" }, "log", this.log),
    );
  }

  // ---- Figures

  useKit({ Bokeh, documents }) {
    this.plot = new Plot(Bokeh, documents, this.slots, () => this.request());
    return this.embed();
  }

  async embed() {
    if (!this.plot) return;
    await this.plot.embed(this.log.checked ? "log" : "linear");
    this.request();
  }

  pick(side, base, kind) {
    this.picks[side] = base;
    this.kinds[side] = kind;
    this.update();
  }

  whole() {
    if (this.plot) this.plot.zoomed = false;
    this.request();
  }

  recolor() {
    this.plot?.look();
    this.request();
  }

  // What each figure shows: the loss, and beside it what says how good the model is.
  sides() {
    const bases = basesOf(this.board.runs.flatMap((run) => run.names));
    const left = bases.includes(this.picks[0]) ? this.picks[0] : (bases.find((base) => /loss$/.test(base)) ?? bases[0]);
    const metric = this.board.runs[0].head?.metric?.replace(/^val_/, "");
    const others = [metric, ...bases].filter((base) => bases.includes(base) && base !== left);
    const right = bases.includes(this.picks[1]) ? this.picks[1] : others[0];
    return { bases, shown: [left ?? null, right ?? null] };
  }

  // However often it is called, a frame draws once.
  request() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    if (!this.plot?.document || !this.root.isConnected) return;
    const { runs, past } = this.board, { bases, shown } = this.sides();
    this.figures[1].hidden = !shown[1];
    const step = Math.max(0, ...runs.map((run) => run.newest));
    try {
      this.plot.draw(runs, shown, past, this.weight, this.kinds);
    } catch (error) {
      this.board.fail(error);
    }
    shown.forEach((base, index) => this.titles[index].show(bases, base, runs, past, this.kinds[index]));
    this.all.hidden = !this.plot.zoomed;
    // Bokeh paints in the next frame; the one after it begins when that paint is on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => (this.painted = { step, at: Date.now() })));
  }

  // ---- Text

  update() {
    const { runs, said, frozen, trouble } = this.board, head = runs[0].head;
    // Several are told apart by the loss that is drawn of them.
    const held = runs.length > 1 && comparedKind(runs, "loss", this.kinds[0]) === "held";
    runs.forEach((run, index) => run.head && this.heads[index].show(run.head, frozen, held));
    if (!head) return;
    this.fill.style.transform = `scaleX(${head.total ? Math.min(1, head.step / head.total) : 0})`;
    this.root.dataset.state = frozen ? "frozen" : STATES[head.state]?.[1];
    const known = runs.some((run) => run.names.length);
    this.plots.hidden = !known;
    this.empty.hidden = known;
    write(this.empty, head.message || (OVER.has(head.state) ? "it has no records" : "waiting for the first record"));
    this.cause.show(head);
    this.trouble.hidden = !(trouble || head.trouble);
    write(this.trouble, trouble || head.trouble || "");
    this.controls?.show(head, runs[0], frozen);
    this.view.hidden = !known;
    this.tell(head, frozen, said);
    this.request();
  }

  tell(head, frozen, said) {
    const last = said ?? head.said ?? { code: "", note: "" }, again = head.elsewhere;
    const how = again ? "To go on, run " : "To see it again, run its cell";
    const elsewhere = frozen ? `this view is frozen: ${frozen}. ${how}` : again && "elsewhere: ";
    const text = [last.code, last.note, elsewhere, again].join("|");
    if (this.told === text || this.board.runs.length > 1) return;
    this.told = text;
    const note = (textContent) => element("span", "note", { textContent });
    const typed = (textContent) => element("span", "typed", { textContent });
    const parts = [last.code && typed(last.code), last.note && note(`${last.code && "  "}# ${last.note}`)];
    const done = [...parts, (last.code || last.note) && elsewhere && note("  ·  ")].filter(Boolean);
    this.code.replaceChildren(...done, note(elsewhere), typed(again));
  }
}

// One line that says it all.
class Head {
  constructor(index) {
    this.name = element("span", "name");
    this.number = element("span", "number");
    this.pill = element("span", "pill");
    this.facts = element("span", "facts");
    this.place = element("span", "place");
    const color = index === null ? [] : [element("span", `swatch h3-run${index}`)];
    const called = element("span", "called", {}, this.name, this.number);
    this.root = element("div", "head", {}, ...color, called, this.pill, this.facts, this.place);
    this.values = new Map();
  }

  show(head, frozen, held) {
    write(this.name, head.name);
    write(this.number, head.number ? `/${head.number}` : "");
    const [word, kind] = STATES[head.state] ?? [head.state, "wait"];
    write(this.pill, frozen ? "frozen" : word);
    this.pill.dataset.kind = frozen ? "wait" : kind;
    const count = (number) => (number ? Math.round(number).toLocaleString("en") : "");
    this.fact("epoch", head.step ? count(head.epoch) : "", head.epochs ? `/${count(head.epochs)}` : "");
    this.fact("step", count(head.step), head.epochs || !head.total ? "" : `/${count(head.total)}`);
    const [loss, called] = held && head.val_loss !== null ? [head.val_loss, "val_loss"] : [head.loss, head.loss_name];
    this.fact("loss", loss === null ? "" : short(loss), "", called);
    this.fact("metric", head.value === null ? "" : short(head.value), "", head.metric);
    this.fact("steps/s", count(head.rate));
    this.fact("left", head.left === null ? "" : duration(head.left));
    const message = head.step && !head.cause ? head.message : "";
    write(this.place, [message, head.place].filter(Boolean).join(" · "));
  }

  fact(key, value, after = "", label = key) {
    if (!this.values.has(key)) {
      const strong = element("b"), rest = element("span", "rest"), words = element("span");
      const fact = element("span", "fact", {}, ...(key === "steps/s" ? [strong, words] : [words, strong, rest]));
      this.values.set(key, { fact, words, strong, rest });
      this.facts.append(fact);
    }
    const { fact, words, strong, rest } = this.values.get(key);
    fact.hidden = value === "";
    write(words, key === "steps/s" ? " steps/s" : `${label} `);
    write(strong, value);
    write(rest, after);
  }
}

// What a figure shows; a choice where there is one.
class Title {
  constructor(onPick) {
    this.choice = element("select", "choice");
    this.choice.addEventListener("change", () => onPick(this.choice.value, null));
    this.kind = element("select", "choice h3-plain");
    const kinds = [["train", "train"], ["held", "validation"]];
    this.kind.append(...kinds.map(([value, textContent]) => element("option", "", { value, textContent })));
    this.kind.addEventListener("change", () => onPick(this.choice.value, this.kind.value));
    this.legend = element("span", "legend");
    const pick = (choice) => element("span", "pick", {}, choice);
    this.compared = pick(this.kind);
    this.root = element("div", "title", {}, pick(this.choice), this.compared, this.legend);
  }

  show(bases, base, runs, past, kind) {
    if (!base) return;
    const one = runs.length === 1, keys = one ? this.keys(base, runs[0], past) : [];
    const both = ["", "val_"].every((prefix) => runs.some((run) => run.names.includes(prefix + base)));
    const compared = one ? "" : comparedKind(runs, base, kind);
    const text = [bases, base, keys, compared, both].join("|");
    if (this.shown === text) return;
    this.shown = text;
    this.compared.hidden = one;
    this.kind.value = compared;
    this.kind.disabled = !both; // nothing to choose
    this.choice.replaceChildren(...bases.map((name) => element("option", "", { value: name, textContent: name })));
    this.choice.value = base;
    this.choice.disabled = bases.length < 2;
    const key = ([kind, name]) => element("span", "key", {}, element("i", `line h3-${kind}`), name);
    this.legend.replaceChildren(...keys.map(key));
  }

  keys(base, run, past) {
    const has = (name) => run.names.includes(name);
    const before = past?.series && (base in past.series || `val_${base}` in past.series);
    // A loop of one's own need not be a training.
    if (!before && !has(`val_${base}`) && !run.head?.elsewhere && !run.head?.epochs) return [];
    return [
      ...(has(base) ? [["train", "train"]] : []),
      ...(has(`val_${base}`) ? [["held", "validation"]] : []),
      ...(before ? [["past", past.name]] : []),
    ];
  }
}

// Why a run has failed: the line that says it, and everything that the rank said.
class Cause {
  constructor() {
    this.line = element("summary", "cause-line");
    this.text = element("pre", "traceback");
    this.root = element("details", "cause", { hidden: true }, this.line, this.text);
    // The end of a traceback is what one looks for.
    this.root.addEventListener("toggle", () => (this.text.scrollTop = this.text.scrollHeight));
  }

  show(head) {
    this.root.hidden = !head.cause;
    write(this.line, head.cause);
    write(this.text, head.traceback);
  }
}
