// The controls of a run: buttons for its verbs, and a field, with a slider where there is a range, for every setting.

class Controls {
  constructor(board) {
    this.board = board;
    this.buttons = Object.fromEntries(Object.keys(VERBS).map((verb) => [verb, this.button(verb)]));
    this.settings = element("div", "settings");
    const buttons = element("div", "buttons", {}, ...Object.values(this.buttons));
    this.root = element("div", "controls", {}, buttons, this.settings);
    this.fields = new Map();
  }

  button(verb) {
    const button = element("button", "button", { textContent: VERBS[verb] });
    button.dataset.verb = verb;
    button.addEventListener("click", () => this.board.ask(verb));
    return button;
  }

  show(head, { settings, verbs }, frozen) {
    const over = OVER.has(head.state), held = head.state === "paused";
    this.root.hidden = over;
    for (const [verb, button] of Object.entries(this.buttons)) {
      button.hidden = !verbs.has(verb) || (verb === "pause" && held) || (verb === "resume" && !held);
      // A click is on its way until the rank has confirmed it; a second one would only ask the same again.
      button.disabled = Boolean(frozen) || this.board.asked.has(verb);
    }
    for (const setting of settings.filter(({ steerable }) => steerable && verbs.has("set"))) {
      if (!this.fields.has(setting.name)) {
        this.fields.set(setting.name, new Field(setting, (value) => this.board.ask("set", { [setting.name]: value })));
        this.settings.append(this.fields.get(setting.name).root);
      }
      const field = this.fields.get(setting.name);
      field.show(head.values[setting.name] ?? setting.default, Boolean(frozen), this.board.asked.has("set"));
    }
  }
}

class Field {
  constructor(setting, onChange) {
    Object.assign(this, { setting, onChange });
    this.input = this.build();
    this.input.addEventListener("change", () => this.changed());
    this.input.addEventListener("keydown", (event) => event.key === "Enter" && this.input.blur());
    this.range = this.buildRange();
    const label = element("span", "", { textContent: setting.name });
    const parts = [label, this.range, this.input].filter(Boolean);
    this.root = element("label", "label", { title: setting.help || setting.name }, ...parts);
    this.root.dataset.setting = setting.name;
  }

  build() {
    const { kind, choices } = this.setting;
    const option = (value) => element("option", "", { value, textContent: value });
    if (choices) return element("select", "choice", {}, ...choices.map(option));
    if (kind === "bool") return element("input", "check", { type: "checkbox" });
    return element("input", "value", { type: "text", inputMode: kind === "str" ? "text" : "decimal", size: 6 });
  }

  // A number with a default has a range: the declared one, or what people try around the default.
  buildRange() {
    const { kind, default: usual, log, choices } = this.setting;
    if (!["float", "int"].includes(kind) || choices || !usual) return null;
    this.low = this.setting.low || (log ? usual / 1000 : 0);
    this.high = this.setting.high ?? (log ? usual * 100 : usual * 4);
    if (log) [this.low, this.high] = [Math.max(this.low, usual / 1000), Math.min(this.high, usual * 1000)];
    const range = element("input", "range", { type: "range", min: 0, max: 1, step: "any" });
    range.addEventListener("input", () => (this.input.value = this.text(this.from(Number(range.value)))));
    range.addEventListener("change", () => this.changed());
    return range;
  }

  // Between a value and the place of the slider, 0 to 1.
  from(place) {
    const { low, high } = this;
    const value = this.setting.log ? low * (high / low) ** place : low + (high - low) * place;
    return this.setting.kind === "int" ? Math.round(value) : Number(value.toPrecision(2));
  }

  to(value) {
    const { low, high } = this;
    const place = this.setting.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return Math.min(1, Math.max(0, place));
  }

  text(value) {
    if (typeof value !== "number") return String(value);
    return value !== 0 && Math.abs(value) < 1e-2 ? value.toExponential().replace("e+", "e") : String(value);
  }

  changed() {
    const { kind } = this.setting, text = this.input.value.trim();
    const value = kind === "bool" ? this.input.checked : ["float", "int"].includes(kind) ? Number(text) : text;
    this.current = undefined;
    // What is no number is sent as it was typed: the Run knows best how to say what it expected.
    this.onChange(Number.isNaN(value) || (text === "" && kind !== "bool") ? text : value);
  }

  show(value, frozen, asked) {
    this.input.disabled = frozen;
    if (this.range) this.range.disabled = frozen;
    const held = document.activeElement === this.input || this.range?.matches(":active");
    if (value === this.current || asked || held) return;
    this.current = value;
    if (this.setting.kind === "bool") this.input.checked = value;
    else this.input.value = this.text(value);
    if (this.range) this.range.value = this.to(value);
  }
}
