// One widget in one page: what the kernel says of its runs, and the cards that show it.

const page = globalThis.crypto.randomUUID?.() ?? String(Math.random()); // one page's name for itself
const SEEN_MS = 15000, QUIET_MS = 5000, ANSWER_MS = 10000;
// A first message may have gone to a kernel whose cell is busy, before Jupyter had a thread for messages like it.
const AGAIN_MS = 1000, AGAIN_MAX_MS = 30000;

class Board {
  constructor(model) {
    this.model = model;
    this.id = model.get("view");
    this.runs = [new Run()];
    this.cards = new Map();
    this.asked = new Map();
    this.known = false; // whether the state has come
    this.patience = AGAIN_MS;
    Object.assign(this, { past: null, said: null, frozen: "", trouble: "", heard: Date.now(), seen: Date.now() });
    model.on("msg:custom", (content, buffers) => this.receive(content, buffers));
    model.on("comm_live_update", () => this.freeze("the kernel was restarted"));
    model.on("destroy", () => this.close());
    this.watch();
  }

  // ---- Mounting

  // Elements of the class are filled wherever they appear: outputs come and go as a notebook is scrolled or read again.
  watch() {
    const look = () => {
      this.looking = null;
      for (const holder of document.getElementsByClassName(`h3lab-${this.id}`)) this.mount(holder);
      for (const holder of [...this.cards.keys()].filter((holder) => !holder.isConnected)) this.unmount(holder);
    };
    this.observer = new MutationObserver(() => (this.looking ??= setTimeout(look, 30)));
    this.observer.observe(document.body, { childList: true, subtree: true });
    this.theme = new MutationObserver(() => this.each((card) => card.recolor()));
    this.theme.observe(document.body, { attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
    this.clock = setInterval(() => this.tick(), 1000);
    look();
  }

  mount(holder) {
    if (this.cards.has(holder)) return;
    this.cards.set(holder, new Card(this, holder));
    if (this.known) this.useKit();
    else if (!this.greeted) this.hello();
  }

  unmount(holder) {
    this.cards.get(holder)?.dispose();
    this.cards.delete(holder);
  }

  each(action) {
    for (const card of this.cards.values()) action(card);
  }

  close() {
    this.freeze("it was closed");
    this.observer.disconnect();
    this.theme.disconnect();
    clearInterval(this.clock);
  }

  // ---- The kernel

  send(content) {
    if (this.frozen) return;
    try {
      this.model.send({ ...content, page });
    } catch {
      this.freeze("the kernel is gone"); // the comm was disposed of together with its kernel
    }
  }

  hello() {
    this.greeted = Date.now();
    this.send({ type: "hello" });
  }

  ask(verb, values = {}) {
    Object.assign(this, { trouble: "", said: null, asks: (this.asks ?? 0) + 1 });
    this.asked.set(verb, this.asks);
    this.send({ type: "do", verb, values, id: this.asks });
    this.each((card) => card.update());
  }

  receive(content, buffers) {
    if (content.page && content.page !== page) return;
    this.heard = Date.now();
    try {
      this[`on_${content.type}`]?.(content, buffers);
    } catch (error) {
      this.fail(error);
    }
    if (this.cards.size && this.heard - this.seen > SEEN_MS) this.see();
  }

  // Still here. A kernel that hears nothing for a while sends no more.
  see() {
    this.seen = Date.now();
    this.send({ type: "seen" });
  }

  on_here({ heads }) {
    heads.forEach((head, index) => (this.runs[index].head = head));
    this.each((card) => card.update());
  }

  on_state({ runs, past }, buffers) {
    if (this.runs.length !== runs.length) {
      this.runs = runs.map(() => new Run());
      for (const holder of [...this.cards.keys()]) {
        this.unmount(holder);
        this.cards.set(holder, new Card(this, holder));
      }
    }
    runs.forEach((part, index) => {
      this.runs[index].series.clear();
      this.runs[index].take(part, points(buffers[index]));
    });
    this.past = past;
    [this.known, this.greeted, this.patience] = [true, 0, AGAIN_MS];
    this.each((card) => card.update());
    this.useKit();
  }

  on_news(part, buffers) {
    if (!this.known) return;
    const before = JSON.stringify(this.runs[0].head.said);
    const whole = this.runs[part.run].take(part, points(buffers[0]));
    if (JSON.stringify(this.runs[0].head.said) !== before && !this.trouble) this.said = null; // the journal knows more
    this.each((card) => card.update());
    if (!whole && !this.greeted) this.hello(); // a message was missed: ask for everything
  }

  on_past({ past }) {
    this.past = past;
    this.each((card) => card.request());
  }

  on_did({ verb, id, code, error, note }) {
    if (this.asked.get(verb) === id) this.asked.delete(verb);
    // Answers overtake each other: what went wrong stays until the next click. What went well the journal says.
    if (error) this.trouble = error;
    if (note) this.said = { code, note };
    this.each((card) => card.update());
  }

  on_kit({ version, documents }, [script]) {
    kits().set(version, load(version, documents, script));
    this.useKit(version);
  }

  // ---- BokehJS: a megabyte, once a page and not once a widget

  async useKit(version = this.model.get("bokeh")) {
    const cards = [...this.cards.values()].filter((card) => !card.plot);
    if (!cards.length) return;
    const kit = kits().get(version);
    if (!kit) {
      // Whoever comes first asks; the others look again when the clock ticks.
      if (Date.now() - (kits().asked ?? 0) > ANSWER_MS) {
        kits().asked = Date.now();
        this.send({ type: "kit" });
      }
      return;
    }
    const loaded = await kit;
    for (const card of cards.filter((card) => !card.plot && card.root.isConnected)) {
      card.useKit(loaded).catch((error) => this.fail(error));
    }
  }

  // ---- When something is wrong

  tick() {
    if (this.frozen || !this.cards.size) return;
    this.useKit();
    const head = this.runs[0].head, silent = Date.now() - this.heard;
    const moving = !head || !OVER.has(head.state);
    if (this.greeted && Date.now() - this.greeted > this.patience) {
      this.patience = Math.min(2 * this.patience, AGAIN_MAX_MS);
      this.hello();
    } else if (moving && silent > QUIET_MS && Date.now() - this.seen > QUIET_MS) {
      this.see();
    }
    const silence = moving && silent > QUIET_MS + ANSWER_MS;
    const late = silence ? `no answer from the kernel for ${duration(silent / 1000)}` : "";
    if (late || this.late) {
      [this.trouble, this.late] = [late, late];
      this.each((card) => card.update());
    }
  }

  freeze(reason) {
    if (this.frozen || (this.model.comm_live ?? false)) return;
    this.frozen = reason;
    this.each((card) => card.update());
  }

  fail(error) {
    console.error(error);
    const text = String(error?.stack ?? error);
    if (this.trouble !== text) this.send({ type: "trouble", text });
    this.trouble = text;
    this.each((card) => (card.trouble.hidden = false) || write(card.trouble, text));
  }
}

function points(view) {
  // A copy, because the points of a message rarely begin where doubles may.
  return new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function kits() {
  return (globalThis.h3labKits ??= new Map());
}

async function load(version, documents, script) {
  if (!globalThis.Bokeh?.[version]) {
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    await new Promise((resolve, reject) => {
      const tag = Object.assign(document.createElement("script"), { src: url, onload: resolve, onerror: reject });
      document.head.append(tag);
    });
    URL.revokeObjectURL(url);
  }
  return { Bokeh: globalThis.Bokeh[version], documents };
}

// The style sheet is the page's, once: cards live in outputs, which come and go.
document.head.append(Object.assign(document.createElement("style"), { textContent: CSS }));

export { Board };
