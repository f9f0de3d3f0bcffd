// Draws a sheet: { html, figures, address }. Shared by the viewer and by report files.
window.ossEvalSheet = (() => {
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

  function draw(box, value, visit) {
    if (!value) return;
    const open = new Set([...box.querySelectorAll("figure details[open]")].map((d) => d.closest("figure").dataset.name));
    const folds = new Set([...box.querySelectorAll("details[data-fold][open]")].map((d) => d.dataset.fold));
    box.querySelectorAll(".js-plotly-plot").forEach((plot) => window.Plotly && Plotly.purge(plot));
    box.innerHTML = value.html;
    box.querySelectorAll("details[data-fold]").forEach((d) => { if (folds.has(d.dataset.fold)) d.open = true; });
    box.querySelectorAll("figure").forEach((f) => { if (open.has(f.dataset.name)) f.querySelector("details").open = true; });
    box.sheet = value;
    plots(box, visit);
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

  function sort(button) {
    const cell = button.closest("th"), table = cell.closest("table"), column = [...cell.parentNode.children].indexOf(cell);
    const down = cell.getAttribute("aria-sort") !== "descending";
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
    layout.title = { text: Plotly.escapeHtml ? Plotly.escapeHtml(title) : title.replace(/</g, "&lt;"), font: { size: 15 } };
    layout.margin = { ...(layout.margin || {}), t: 48 };
    await Plotly.downloadImage({ data, layout }, { format: button.dataset.save, filename: source.name,
      width: 1000, height: 600, scale: button.dataset.save === "png" ? 2 : 1 });
  }

  function listen(box, visit) {
    box.addEventListener("click", (event) => {
      const target = event.target;
      const sorter = target.closest("[data-sort]"), saver = target.closest("[data-save]"), copier = target.closest("[data-copy]");
      if (sorter) return sort(sorter);
      if (saver) return save(saver, box);
      if (copier) {
        const words = copier.parentNode.querySelector("code").textContent;
        navigator.clipboard.writeText(words).then(() => { copier.textContent = "✓"; });
        return;
      }
      const link = target.closest("a[data-go]");
      if (link && visit && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
        event.preventDefault();
        visit(link.getAttribute("href"));
      }
    });
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
    const now = new URLSearchParams(location.search), next = new URLSearchParams(address);
    if (location.search === address) return;
    const step = ["show", "runs", "sample", "request"].some((name) => (now.get(name) || "") !== (next.get(name) || ""));
    if (step && location.search) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }
  window.addEventListener("popstate", () => location.reload());

  return { draw, listen, locate, isAt };
})();
