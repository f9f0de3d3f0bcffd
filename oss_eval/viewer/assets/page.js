// Draws a sheet: { html, figures, address }. Shared by the viewer and by report files.
window.ossEvalPage = (() => {
  const css = (name, fallback) => getComputedStyle(document.body).getPropertyValue(name).trim() || fallback;

  function dressed(figure) {
    const ink = css("--body-text-color", "#1f2937"), line = css("--oss-line", "#d1d5db");
    const layout = JSON.parse(JSON.stringify(figure.layout));
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { ...(layout.font || {}), color: ink };
    for (const key of Object.keys(layout).filter((k) => /^[xy]axis\d*$/.test(k)))
      Object.assign(layout[key], { gridcolor: line, linecolor: line, zerolinecolor: line });
    layout.hoverlabel = { bgcolor: css("--oss-paper", "#fff"), bordercolor: line, font: { color: ink } };
    const data = figure.data.map((trace) => {
      const copy = { ...trace };
      for (const name of ["error_x", "error_y"]) if (copy[name]) copy[name] = { ...copy[name] };
      return copy;
    });
    return { data, layout };
  }

  const foldName = (d) => d.dataset.fold || "figure " + (d.closest("figure") || { dataset: {} }).dataset.name;

  function draw(box, value, visit) {
    if (!value) return;
    document.body.classList.remove("oss-busy");
    box.querySelectorAll(".js-plotly-plot").forEach((plot) => window.Plotly && Plotly.purge(plot));
    const focused = box.contains(document.activeElement) && (document.activeElement.getAttribute("href") ||
      document.activeElement.textContent);
    box.innerHTML = value.html;
    box.querySelectorAll("table[data-name]").forEach((table) => {
      const kept = (box.sorts || {})[table.dataset.name];
      if (kept) order(table, kept.column, kept.down);
    });
    if (focused) [...box.querySelectorAll("a, button, summary")]
      .find((e) => e.getAttribute("href") === focused || e.textContent === focused)?.focus({ preventScroll: true });
    box.querySelectorAll("details").forEach((d) => { // as the reader left it
      const left = (box.folds || {})[foldName(d)];
      if (left !== undefined) d.open = left;
    });
    box.sheet = value;
    const here = box.querySelector("nav [aria-current]");
    if (here) document.title = here.textContent + " · oss-eval";
    plots(box, visit);
  }

  // Shown only if the answer takes longer than a moment (see the style's delay).
  let visits = 0;
  function visit(address) {
    document.body.classList.add("oss-busy");
    const field = document.querySelector("#wanted input, #wanted textarea");
    field.value = `${address}#${++visits}`; // the same address may be followed again
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function plots(box, visit) {
    if (!box.sheet || !box.sheet.figures.length) return;
    if (!window.Plotly) { setTimeout(() => plots(box, visit), 50); return; }
    if (!box.offsetParent) { // a hidden tab has no size: drawn when it is shown
      const seen = new IntersectionObserver((entries) => {
        if (entries.some((e) => e.isIntersecting)) { seen.disconnect(); plots(box, visit); }
      });
      seen.observe(box);
      return;
    }
    box.querySelectorAll("figure").forEach((element) => {
      const plot = element.querySelector(".plot"), { data, layout } = dressed(box.sheet.figures[element.dataset.figure]);
      Plotly.react(plot, data, layout, { responsive: true, displaylogo: false, doubleClick: "reset",
        modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"] });
      if (visit && !plot.dataset.listening) {
        plot.dataset.listening = "1";
        plot.on("plotly_click", (event) => {
          const to = event.points.map((p) => p.customdata).find((c) => typeof c === "string" && c.startsWith("?"));
          if (to) visit(to);
        });
      }
    });
  }

  function sort(button, box) {
    const cell = button.closest("th"), table = cell.closest("table"), column = [...cell.parentNode.children].indexOf(cell);
    const down = cell.getAttribute("aria-sort") !== "descending";
    if (table.dataset.name) (box.sorts ||= {})[table.dataset.name] = { column, down };
    order(table, column, down);
  }

  function order(table, column, down) {
    const cell = table.tHead.rows[0].cells[column];
    if (!cell) return;
    table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows], key = (row) => row.cells[column].dataset.value;
    const number = rows.every((row) => key(row) === "" || !isNaN(key(row)));
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === ""); // what is absent stays below
      const order = number ? x - y : x.localeCompare(y);
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }

  async function save(button, box) {
    const element = button.closest("figure"), source = box.sheet.figures[element.dataset.figure];
    const { data, layout } = dressed(source);
    layout.paper_bgcolor = css("--oss-paper", "#fff");
    const title = element.querySelector("figcaption").textContent;
    const words = [title, box.sheet.caption].filter(Boolean).map((text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;"));
    layout.title = { text: `${words[0]}<br><sub>${words[1] || ""}</sub>`, font: { size: 15 } };
    layout.margin = { ...(layout.margin || {}), t: 64 };
    const file = [source.name, ...(box.sheet.caption || "").split(/[^A-Za-z0-9._-]+/).slice(0, 2)].filter(Boolean).join("-");
    await Plotly.downloadImage({ data, layout }, { format: button.dataset.save, filename: file,
      width: 1000, height: 600, scale: button.dataset.save === "png" ? 2 : 1 });
  }

  function listen(box, visit) {
    box.addEventListener("click", (event) => {
      const target = event.target;
      const sorter = target.closest("[data-sort]"), saver = target.closest("[data-save]"), copier = target.closest("[data-copy]");
      if (sorter) return sort(sorter, box);
      if (saver) return save(saver, box);
      if (copier) {
        const words = copier.parentNode.querySelector("code").textContent;
        navigator.clipboard.writeText(words).then(() => { copier.textContent = "✓"; });
        return;
      }
      const tick = target.closest("a[role=checkbox]");
      if (tick && visit && !event.ctrlKey && !event.metaKey) { // quick ticks add up, even before the answer comes
        event.preventDefault();
        const on = tick.getAttribute("aria-checked") !== "true";
        tick.setAttribute("aria-checked", on);
        tick.textContent = on ? "☑" : "☐";
        const to = new URLSearchParams(tick.getAttribute("href")), key = tick.dataset.run;
        const before = (box.ticked || (new URLSearchParams(location.search).get("runs") || "").split(",")).filter(Boolean);
        box.ticked = on ? [...before, key] : before.filter((name) => name !== key);
        to.set("runs", box.ticked.join(","));
        visit("?" + to);
        return;
      }
      const link = target.closest("a[data-go]");
      if (link && visit && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
        event.preventDefault();
        visit(link.getAttribute("href"));
      }
    });
    box.addEventListener("toggle", (event) => {
      if (event.target.isConnected) (box.folds ||= {})[foldName(event.target)] = event.target.open;
    }, true);
    new ResizeObserver(() => box.querySelectorAll(".js-plotly-plot").forEach((plot) => {
      if (plot.offsetParent && Math.abs(plot.clientWidth - (plot._fullLayout || {}).width) > 2) Plotly.Plots.resize(plot);
    })).observe(box);
    new MutationObserver(() => plots(box, visit)).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  // The page, runs and sample make a step back in the browser's history; filters do not.
  let current = null;
  const isAt = (address) => address === current;
  function locate(address) {
    current = address;
    document.querySelectorAll(".oss").forEach((box) => { box.ticked = null; });
    const now = new URLSearchParams(location.search), next = new URLSearchParams(address);
    if (location.search === address) return;
    const step = ["show", "runs", "sample", "request"].some((name) => (now.get(name) || "") !== (next.get(name) || ""));
    if (step && location.search) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }
  window.addEventListener("popstate", () => location.reload());

  return { draw, listen, locate, isAt, visit };
})();
