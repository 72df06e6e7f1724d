"""The page's arithmetic, in the browser that runs it: series that grow and shrink, bins that are kept."""

from __future__ import annotations

from playwright.sync_api import Browser

from h3lab.ui.panel import STATIC

CHECK = """() => {
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const series = new Series(), bins = new Bins(series), truth = [];
  for (let round = 0; round < 400; round++) {
    // Append; now and then take back some points first, as a new attempt does, or send some again.
    const start = random() < 0.02 ? Math.floor(random() * truth.length) : truth.length;
    truth.length = start;
    const count = Math.floor(random() * 400), x = [], y = [];
    for (let i = 0; i < count; i++) {
      x.push((truth.at(-1)?.[0] ?? 0) + 1);
      y.push(random() < 0.01 ? NaN : random());
      truth.push([x.at(-1), y.at(-1)]);
    }
    if (!series.put(start, Float64Array.from(x), Float64Array.from(y))) return "a gap where there is none";
    if (series.size !== truth.length) return "the size";
    if (!truth.length) continue;
    const zoomed = random() < 0.3;
    const from = zoomed ? Math.floor(random() * truth.length * 0.9) : 0, to = truth.length;
    bins.cover(from, to);
    const fresh = new Bins(series);
    fresh.cover(from, to);
    for (const kind of ["extremes", "smooth"]) {
      const a = bins[kind](0.9), b = fresh[kind](0.9);
      if (a.x.length !== b.x.length || a.x.some((v, i) => !Object.is(v, b.x[i]) || !Object.is(a.y[i], b.y[i]))) {
        return `${kind} of kept bins differ from fresh ones in round ${round}`;
      }
    }
    const ends = (values) => [Math.min(...values.filter(Number.isFinite)), Math.max(...values.filter(Number.isFinite))];
    const [low, high] = ends(truth.slice(from).map(([, y]) => y)), [lowest, highest] = ends(fresh.extremes().y);
    if (lowest > low || highest < high) return "an extreme is lost";
    if (fresh.count > 1001) return `${fresh.count} bins`;
  }
  if (truth.length < 5000) return "the check is too small to mean anything";
  if (series.put(series.size + 1, new Float64Array(1), new Float64Array(1))) return "a gap was not noticed";
  if (series.find(100) !== 99 || series.find(0) !== 0 || series.find(1e9) !== series.size) return "find";
  return "good";
}"""


def test_kept_bins_are_what_fresh_ones_would_be(browser: Browser):
    page = browser.new_page()
    page.add_script_tag(content=(STATIC / "series.js").read_text())
    assert page.evaluate(CHECK) == "good"
    page.close()
