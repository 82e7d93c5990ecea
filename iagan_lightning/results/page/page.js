"use strict";
// Names and values become text nodes and attributes, never markup: nothing in the data can inject HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const several = data.runs.length > 1;
const methods = Object.keys(data.methods);
const metrics = Object.fromEntries(data.metrics.map((metric) => [metric.key, metric]));
const METRIC = ["psnr", "lpips_alex", "lpips_vgg", "lpips_squeeze", "residual"].find((key) => metrics[key]) || "residual";
const everywhere = (key) => data.runs.every((_, run) => data.summary.some((row) => row.run === run && row.method === key));
const METHOD = [data.offered, "iagan_bp", "iagan"].find(everywhere) || methods.find(everywhere) || methods[methods.length - 1];
const SVG = "http://www.w3.org/2000/svg";
const PAGE = 12; // cards made at a time

function fill(node, settings, children) {
  for (const [key, value] of Object.entries(settings)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, setting] of Object.entries(value)) node.style.setProperty(name, setting);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, settings = {}, ...children) => fill(document.createElement(tag), settings, children);
const svg = (tag, settings = {}, ...children) => fill(document.createElementNS(SVG, tag), settings, children);
const color = (index) => `var(--c${index % 8})`;
const runColor = (index) => color([3, 1, 4, 6, 2, 7, 5, 0][index % 8]);
const methodColor = (method) => color(methods.indexOf(method));

function format(key, value) {
  if (value === null || value === undefined) return "–";
  const how = metrics[key] ? metrics[key].format : "3";
  return how === "e" ? value.toExponential(1).replace("-", "−") : value.toFixed(Number(how)).replace("-", "−");
}
const withUnit = (key, value) => (key === "psnr" ? `${format(key, value)} dB` : format(key, value));
// Tells of a value whether it is the best of all, as far as its digits show it. Residuals of rounding are alike.
function bestOf(key, values, alike = true) {
  const known = values.filter(Number.isFinite);
  if (!metrics[key].judged || !alike || known.length < 2) return () => false;
  const shown = (value) => format(key, key === "residual" ? Math.max(value, 1e-6) : value);
  const best = shown(metrics[key].better === "high" ? Math.max(...known) : Math.min(...known));
  return (value) => Number.isFinite(value) && shown(value) === best;
}

function picture(shown, title, coarse) {
  const img = el("img", { class: `picture${coarse ? " coarse" : ""}`, alt: title, loading: "lazy", decoding: "async" });
  img.src = shown.uri;
  return img;
}
// Large pictures lie beside the page; where the page has travelled alone, the embedded thumbnail stands in.
function full(shown, title) {
  const img = el("img", { alt: title, draggable: "false" });
  if (shown.exact) img.src = shown.uri;
  else {
    img.addEventListener("error", () => { img.src = shown.uri; }, { once: true });
    img.src = shown.file;
  }
  if (Math.max(shown.width, shown.height) < 200) img.classList.add("coarse");
  return img;
}
const titleOf = (kind) => data.titles[kind] || kind;
const select = (options, value, change, label) => {
  const node = el("select", { "aria-label": label, onchange: () => change(node.value) });
  for (const [key, text] of options) node.append(el("option", { value: key, selected: String(key) === String(value) }, text));
  return node;
};
const facts = (values) => el("dl", { class: "facts" },
  Object.entries(values).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
// What scrolls sideways or by itself can be reached and scrolled with the keyboard.
const scrolling = (label, settings) => ({ tabindex: 0, role: "region", "aria-label": label, ...settings });
const links = (targets) => el("div", { class: "links" }, Object.entries(targets).map(([name, href]) => el("a", { href }, name)));

// Sorting -------------------------------------------------------------------------------------------------------------
function sortable(table) {
  const heads = [...table.querySelectorAll("th[data-column]")];
  for (const head of heads) {
    const label = head.textContent;
    head.replaceChildren(el("button", { type: "button" }, label));
    head.firstChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending" && !(head.dataset.text && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const column = Number(head.dataset.column);
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is unknown stays at the end
        const order = head.dataset.text ? x.localeCompare(y) : Number(x) - Number(y);
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  }
  return table;
}

// Head and summary ----------------------------------------------------------------------------------------------------
function head() {
  const count = data.images.length;
  const task = data.runs[0].facts.task;
  const title = several ? `${data.runs.length} runs beside each other` : task ? `${task[0].toUpperCase()}${task.slice(1).replace("compressed-", "compressed ")}` : data.runs[0].label;
  const sections = [["summary", "Summary"], ["distributions", "Distributions"], ["curves", "Curves"], ["ends", "Best and worst"], ["images", "Images"], ["failed", "Failed"], ["settings", "Settings"]]
    .filter(([id]) => document.querySelector(`#${id} h2`));
  document.getElementById("top").append(
    el("h1", {}, title),
    el("p", { class: "soft" }, `${count} ${count === 1 ? "image" : "images"}${several ? "" : ` in ${data.runs[0].folder}`}`),
    el("nav", { "aria-label": "Sections" }, sections.map(([id, text]) => el("a", { href: `#${id}` }, text))),
    el("div", { class: `runs${several ? "" : " single"}` }, data.runs.map((run, index) => el("div", { class: "panel" },
      several && el("h2", {}, el("span", { class: "dot", style: { background: runColor(index) } }), run.label),
      facts(run.facts)))));
}

function summary() {
  const parts = ["mean", "median", "std"];
  const shown = data.metrics;
  const lead = several ? 3 : 2;
  const table = el("table", { id: "table" },
    el("thead", {},
      el("tr", {}, el("td", { class: "first" }), several && el("td"), el("td"),
        shown.map((metric) => el("th", { colspan: 3, class: "group" }, metric.title, " ", el("small", {}, metric.unit)))),
      el("tr", {}, el("th", { class: "text first", "data-column": 0, "data-text": 1 }, "method"),
        several && el("th", { class: "text", "data-column": 1, "data-text": 1 }, "run"),
        el("th", { "data-column": lead - 1 }, "n"),
        shown.map((metric, i) => parts.map((part, j) =>
          el("th", { class: j ? "" : "group", "data-column": lead + 3 * i + j }, part === "std" ? "spread" : part))))));
  const best = {};
  for (const metric of shown) for (const part of ["mean", "median"])
    best[`${metric.key}.${part}`] = bestOf(metric.key, data.summary.map((row) => row[metric.key] && row[metric.key][part]), metric.alike);
  table.append(el("tbody", {}, data.summary.map((row) => el("tr", {},
    el("th", { class: "text first", scope: "row", "data-value": data.methods[row.method] },
      el("span", { class: "dot", style: { background: methodColor(row.method) } }), data.methods[row.method]),
    several && el("td", { class: "text", "data-value": data.runs[row.run].label }, data.runs[row.run].label),
    el("td", { class: "soft", "data-value": row.n }, row.n),
    shown.map((metric) => parts.map((part, j) => {
      const value = row[metric.key] ? row[metric.key][part] : null;
      const text = part === "std" && row.n < 2 ? "–" : format(metric.key, value);
      const wins = part !== "std" && best[`${metric.key}.${part}`](value);
      return el("td", { class: `${j ? "" : "group"}${wins ? " best" : ""}${part === "std" ? " soft" : ""}`, "data-value": value === null ? "" : value }, text);
    }))))));
  return el("section", { id: "summary" }, el("h2", {}, "Summary"), el("div", scrolling("Table of means", { class: "panel scroll" }), sortable(table)),
    el("p", { class: "note", style: { "margin-top": "8px" } }, `Bold: best${several ? " of all runs" : ""}${metrics.residual && !metrics.residual.judged ? " (of residuals none: with noise the truth leaves one too)" : ""}. Spread: standard deviation over images. A column's title sorts by it.`),
    data.notes.map((line) => el("p", { class: "note" }, line)), differences());
}
function differences() {
  if (!data.differences.length) return null;
  const signed = (key, value) => `${value > 0 ? "+" : ""}${format(key, value)}`;
  const shown = data.metrics.filter((metric) => data.differences.some((row) => row[metric.key]));
  return [el("h3", { style: { "margin-top": "16px" } }, `Differences from ${data.runs[0].label}, picture by picture`),
    el("div", scrolling("Table of differences", { class: "panel scroll" }), el("table", { id: "differences" },
      el("thead", {}, el("tr", {}, el("th", { class: "text first" }, "method"), el("th", { class: "text" }, "run"),
        shown.map((metric) => el("th", {}, metric.title, " ", el("small", {}, metric.unit))))),
      el("tbody", {}, data.differences.map((row) => el("tr", {},
        el("th", { class: "text first", scope: "row" }, el("span", { class: "dot", style: { background: methodColor(row.method) } }), data.methods[row.method]),
        el("td", { class: "text" }, data.runs[row.run].label),
        shown.map((metric) => {
          const one = row[metric.key];
          return el("td", {}, one ? `${signed(metric.key, one.mean)} ± ${format(metric.key, one.std)} (${one.n})` : "–");
        })))))),
    el("p", { class: "note", style: { "margin-top": "8px" } }, "Mean ± standard deviation over the pictures (their number in brackets) of a run's value less that of the first.")];
}

// Charts --------------------------------------------------------------------------------------------------------------
// Drawn anew for every width, so that letters keep their size; the height does not depend on it.
function fitted(draw) {
  let last = 440;
  const box = el("div", {}, draw(last));
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.round(contentRect.width);
    if (width && width !== last) { last = width; box.replaceChildren(draw(width)); }
  }).observe(box);
  return box;
}
const plot = (width, height, label) => svg("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) values.push(i * step);
  return { values, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
function scale(values, log, from, to, pad = 0.04) {
  const known = values.filter((value) => Number.isFinite(value) && (!log || value > 0)).map((value) => (log ? Math.log10(value) : value));
  let low = known.length ? known.reduce((a, b) => Math.min(a, b)) : 0;
  let high = known.length ? known.reduce((a, b) => Math.max(a, b)) : 1;
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) { low -= 0.5; high += 0.5; }
  [low, high] = [low - (high - low) * pad, high + (high - low) * pad];
  const place = (value) => from + (((log ? Math.log10(value) : value) - low) / (high - low)) * (to - from);
  const span = high - low;
  let marks;
  if (log && span > 1.3) {
    const every = Math.ceil(span / 6);
    marks = ticks(low, high, 6).values.filter((v) => Number.isInteger(v)).filter((v, i, all) => (v - all[0]) % every === 0)
      .map((v) => [10 ** v, v > -3 && v < 3 ? String(Number((10 ** v).toPrecision(1))) : `1e${String(v).replace("-", "−")}`]);
  } else if (log) {
    const { values } = ticks(10 ** low, 10 ** high, 5);
    marks = values.filter((v) => v > 0).map((v) => [v, v >= 0.01 ? String(Number(v.toPrecision(2))) : v.toExponential(0).replace("-", "−")]);
  } else {
    const { values, digits } = ticks(low, high);
    marks = values.map((v) => [v, v.toFixed(digits).replace("-", "−")]);
  }
  return { place, marks, visible: (value) => Number.isFinite(value) && (!log || value > 0) };
}

function distribution(key) {
  const rows = [];
  for (const method of methods) data.runs.forEach((run, index) => {
    const points = [];
    data.images.forEach((image, number) => {
      const own = image.runs[index];
      const value = own && own.metrics[method] ? own.metrics[method][key] : undefined;
      if (Number.isFinite(value)) points.push([value, number, image.name]);
    });
    if (points.length) rows.push({ method, index, points });
  });
  if (!rows.length) return null;
  const median = ({ points }) => { const all = points.map((point) => point[0]).sort((a, b) => a - b); return (all[Math.floor((all.length - 1) / 2)] + all[Math.ceil((all.length - 1) / 2)]) / 2; };
  const label = (row) => (several ? `${data.methods[row.method]} · ${data.runs[row.index].label}` : data.methods[row.method]);
  const draw = (width) => {
    const most = width < 400 ? 18 : 26;
    const cut = (text) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
    const left = 16 + 7 * Math.max(...rows.map((row) => cut(label(row)).length));
    const [step, top] = [several ? 24 : 32, 6];
    const bottom = top + rows.length * step;
    const log = key.startsWith("residual");
    const x = scale(rows.flatMap((row) => row.points.map((point) => point[0])), log, left, width - 8);
    const chart = plot(width, bottom + 22, `Distribution of ${metrics[key].title}. Medians: ${rows.map((row) => `${label(row)} ${format(key, median(row))}`).join(", ")}`);
    for (const [value, text] of x.marks) chart.append(
      svg("line", { class: "grid", x1: x.place(value), x2: x.place(value), y1: top, y2: bottom }),
      svg("text", { x: x.place(value), y: bottom + 15, "text-anchor": "middle" }, text));
    rows.forEach((row, position) => {
      const middle = top + (position + 0.5) * step;
      const paint = methodColor(row.method);
      chart.append(svg("text", { class: "label", x: 2, y: middle + 4 }, cut(label(row)), svg("title", {}, label(row))));
      const sorted = row.points.map((point) => point[0]).filter(x.visible).sort((a, b) => a - b);
      const quantile = (share) => {
        const place = share * (sorted.length - 1);
        const low = Math.floor(place);
        return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
      };
      if (sorted.length >= 5) chart.append(svg("rect", { class: "box", x: x.place(quantile(0.25)), width: Math.max(1, x.place(quantile(0.75)) - x.place(quantile(0.25))), y: middle - step * 0.33, height: step * 0.66, rx: 3, fill: paint, stroke: paint }));
      const many = row.points.length > 60;
      for (const [value, number, name] of row.points) if (x.visible(value)) {
        const jitter = sorted.length < 5 ? 0 : (((number * 0.618034) % 1) - 0.5) * step * 0.55;
        chart.append(svg("circle", { cx: x.place(value).toFixed(1), cy: (middle + jitter).toFixed(1), r: many ? 2 : 3.6, fill: paint, "fill-opacity": many ? 0.45 : 0.8, onclick: () => open(number, row.index) },
          svg("title", {}, `${name}: ${withUnit(key, value)}`)));
      }
      if (sorted.length >= 3) chart.append(svg("line", { class: "median", stroke: paint, x1: x.place(quantile(0.5)), x2: x.place(quantile(0.5)), y1: middle - step * 0.4, y2: middle + step * 0.4 }));
    });
    return chart;
  };
  return el("div", { class: "panel" }, el("h3", {}, metrics[key].title, " ", el("small", {}, metrics[key].unit)), fitted(draw));
}
function distributions() {
  const wanted = Object.keys(metrics).filter((key) => key === "psnr" || key.startsWith("lpips"));
  const shown = (wanted.length ? wanted : ["residual", "residual_sigma"]).filter((key) => metrics[key]);
  return el("section", { id: "distributions" }, el("h2", {}, "Distributions"),
    el("div", { class: "charts" }, shown.map(distribution)),
    el("p", { class: "note", style: { "margin-top": "8px" } }, "A point is an image: a click opens it. From five images on, the box holds the middle half; the heavy line is the median."));
}

const CURVES = { objective: ["Objective", "|y − Ax|² / m", true], psnr: ["PSNR", "dB", false], residual: ["Residual", "|Ax − y| / |y|", true] };
// The stages that all series have in common, or null: then each shows by a dot where its next stage begins.
function sameStages(series) {
  const { stages } = series[0].curves;
  return series.every((one) => JSON.stringify(one.curves.stages) === JSON.stringify(stages)) ? stages : null;
}
// series: [{ curves, paint, name, click }]
function curveChart(key, series, faint) {
  const drawn = series.filter((one) => one.curves && one.curves[key]);
  if (!drawn.length) return null;
  const [title, unit, log] = CURVES[key];
  const alike = sameStages(drawn);
  const [height, left, top, bottom] = [230, 50, 20, 196];
  const draw = (width) => {
    const x = scale(drawn.flatMap((one) => [0, one.curves.evaluation[one.curves.evaluation.length - 1]]), false, left, width - 10, 0);
    const y = scale(drawn.flatMap((one) => one.curves[key]), log, bottom, top);
    const chart = plot(width, height, `${title} over evaluations: ${drawn.length === 1 ? drawn[0].name : `${drawn.length} curves`}`);
    if (alike) alike.forEach(([name, from], index, stages) => {
      const end = index + 1 < stages.length ? x.place(stages[index + 1][1]) : width - 10;
      if (index % 2) chart.append(svg("rect", { class: "stage", x: x.place(from), width: Math.max(0, end - x.place(from)), y: top, height: bottom - top }));
      chart.append(svg("text", { x: x.place(from) + 5, y: top - 6 }, `${name} stage`));
    });
    for (const [value, text] of y.marks) chart.append(
      svg("line", { class: "grid", x1: left, x2: width - 10, y1: y.place(value), y2: y.place(value) }),
      svg("text", { x: left - 6, y: y.place(value) + 4, "text-anchor": "end" }, text));
    for (const [value, text] of x.marks) chart.append(svg("text", { x: x.place(value), y: bottom + 16, "text-anchor": "middle" }, text));
    chart.append(svg("text", { x: (left + width) / 2, y: height - 1, "text-anchor": "middle" }, "evaluations of the objective"));
    for (const { curves, paint, name, click } of drawn) {
      let path = "";
      let pen = false;
      curves[key].forEach((value, index) => {
        if (!y.visible(value) || value === null) { pen = false; return; }
        path += `${pen ? "L" : "M"}${x.place(curves.evaluation[index]).toFixed(1)} ${y.place(value).toFixed(1)}`;
        pen = true;
      });
      chart.append(svg("path", { class: "curve", d: path, stroke: paint, "stroke-opacity": faint, style: click ? { cursor: "pointer" } : {}, ...(click ? { onclick: click } : {}) }, svg("title", {}, name)));
      if (!alike) for (const [stage, from] of curves.stages.slice(1)) {
        const value = curves[key][curves.evaluation.indexOf(from)];
        if (y.visible(value) && value !== null) chart.append(svg("circle", { cx: x.place(from), cy: y.place(value), r: 2.6, fill: paint }, svg("title", {}, `${name}: ${stage} stage begins`)));
      }
    }
    return chart;
  };
  return el("div", { class: "panel" }, el("h3", {}, title, " ", el("small", {}, unit)), fitted(draw));
}
function curves() {
  const all = data.images.flatMap((image, number) => image.runs.map((own, index) => own && own.curves && {
    curves: own.curves, paint: several ? runColor(index) : runColor(number), name: several ? `${image.name} · ${data.runs[index].label}` : image.name, click: () => open(number, index),
  })).filter(Boolean);
  if (!all.length) return el("section", { id: "curves" }, el("h2", {}, "Curves"), el("p", { class: "note" }, "These runs stored no curves (curves.csv)."));
  const most = 40;
  const shown = all.length <= most ? all : Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)]);
  const legend = several ? data.runs.map((run, index) => [run.label, runColor(index)]) : shown.length <= 8 ? shown.map((one) => [one.name, one.paint]) : [];
  return el("section", { id: "curves" }, el("h2", {}, "Curves"),
    el("div", { class: "charts" }, Object.keys(CURVES).map((key) => curveChart(key, shown, shown.length > 12 ? 0.45 : 0.9))),
    el("div", { class: "legend" }, legend.map(([name, paint]) => el("span", {}, el("span", { class: "dot", style: { background: paint } }), name))),
    el("p", { class: "note" }, `Every line is an image${shown.length < all.length ? ` (${most} of ${all.length}, evenly spaced)` : ""}: CSGM in the latent stage, IAGAN in the joint stage${sameStages(shown) ? "" : ", which begins at its dot"}. A click opens it.`));
}

// Images --------------------------------------------------------------------------------------------------------------
function valueOf(number, key, method) {
  const values = data.images[number].runs.map((own) => own && own.metrics[method] && own.metrics[method][key]).filter(Number.isFinite);
  return values.length ? values.reduce((a, b) => a + b) / values.length : null;
}
function ranking(key, method) { // best first, unknown last
  const sign = metrics[key].better === "high" ? -1 : 1;
  return data.images.map((_, number) => [valueOf(number, key, method), number])
    .sort((a, b) => (a[0] === null) - (b[0] === null) || sign * (a[0] - b[0]) || a[1] - b[1]).map((pair) => pair[1]);
}
function ends() {
  const known = ranking(METRIC, METHOD).filter((number) => valueOf(number, METRIC, METHOD) !== null);
  const count = Math.min(6, Math.floor(known.length / 2));
  const strip = (title, numbers) => el("div", { class: "panel" }, el("h3", {}, title, " ", el("small", {}, `${metrics[METRIC].title} of ${data.methods[METHOD]}`)),
    el("div", { class: "strip" }, numbers.map((number) => {
      const own = data.images[number].runs.find((run) => run && run.pictures[METHOD]);
      if (!own) return null;
      return el("figure", {}, el("button", { type: "button", onclick: () => open(number, data.images[number].runs.indexOf(own)) }, picture(own.pictures[METHOD], data.images[number].name)),
        el("figcaption", {}, el("div", { class: "name", title: data.images[number].name }, data.images[number].name), el("span", {}, withUnit(METRIC, valueOf(number, METRIC, METHOD)))));
    })));
  if (!count) return el("section", { id: "ends" });
  return el("section", { id: "ends" }, el("h2", {}, "Best and worst"),
    el("div", { class: "ends" }, strip("Worst", known.slice(-count).reverse()), strip("Best", known.slice(0, count))));
}

function row(number, index) {
  const own = data.images[number].runs[index];
  const keys = [metrics.psnr && "psnr", Object.keys(metrics).find((key) => key.startsWith("lpips"))].filter(Boolean);
  const shown = keys.length ? keys : ["residual"];
  const best = Object.fromEntries(shown.map((key) => [key, bestOf(key, Object.values(own.metrics).map((values) => values[key]))]));
  return el("div", { class: "row", style: { "--count": Math.max(7, Object.keys(own.pictures).length) } }, Object.entries(own.pictures).map(([kind, shot]) => {
    const values = own.metrics[kind] || {};
    return el("figure", {},
      el("button", { type: "button", onclick: () => open(number, index, kind), "aria-label": `${data.images[number].name}, ${titleOf(kind)}` }, picture(shot, titleOf(kind), kind === "measurement")),
      el("figcaption", {}, el("b", {}, titleOf(kind)),
        kind === "measurement" && el("span", {}, `${shot.width} × ${shot.height}`),
        shown.filter((key) => Number.isFinite(values[key])).map((key) =>
          el("span", { class: best[key](values[key]) ? "best" : "" }, key.startsWith("lpips") ? `LPIPS ${format(key, values[key])}` : key === "residual" ? `residual ${format(key, values[key])}` : withUnit(key, values[key])))));
  }));
}
function card(number) {
  const image = data.images[number];
  return el("article", { class: "card panel" },
    el("header", {}, el("h3", {}, el("button", { type: "button", onclick: () => open(number, image.runs.findIndex(Boolean)) }, image.name))),
    data.runs.map((run, index) => [several && el("div", { class: "runname" }, el("span", { class: "dot", style: { background: runColor(index) } }), run.label, !image.runs[index] && ": not in this run"), image.runs[index] && row(number, index)]));
}
let order = []; // numbers of the images in the list at hand, for "previous" and "next"
function images() {
  const state = { key: METRIC, method: METHOD, direction: "worst", words: "" };
  const list = el("div", { id: "list" });
  const rest = el("div", { style: { height: "1px" } });
  const count = el("span", { class: "count", "aria-live": "polite" });
  let made = 0;
  const more = () => {
    for (let i = 0; i < PAGE && made < order.length; i += 1, made += 1) list.append(card(order[made]));
  };
  const near = () => rest.getBoundingClientRect().top < innerHeight + 900;
  const watch = () => { while (made < order.length && near()) more(); };
  const again = () => {
    const words = state.words.toLowerCase();
    const ranked = state.direction === "name" ? data.images.map((_, number) => number) : ranking(state.key, state.method);
    const known = ranked.filter((number) => state.direction === "name" || valueOf(number, state.key, state.method) !== null);
    const unknown = ranked.filter((number) => !known.includes(number));
    if (state.direction === "worst") known.reverse();
    order = [...known, ...unknown].filter((number) => data.images[number].name.toLowerCase().includes(words));
    count.textContent = order.length === data.images.length ? `${order.length} images` : `${order.length} of ${data.images.length} images`;
    made = 0;
    list.replaceChildren();
    more();
    if (list.isConnected) watch();
  };
  const change = (name) => (value) => { state[name] = value; again(); };
  const judged = data.metrics.filter((metric) => metric.better);
  const search = el("input", { type: "search", placeholder: "name contains …", "aria-label": "Filter by name", oninput: () => change("words")(search.value) });
  again();
  new IntersectionObserver(watch, { rootMargin: "900px" }).observe(rest);
  return el("section", { id: "images" }, el("h2", {}, "Images"),
    el("div", { class: "controls" },
      select([["worst", "worst first"], ["best", "best first"], ["name", "by name"]], "worst", change("direction"), "Order"),
      el("label", {}, "by", select(judged.map((metric) => [metric.key, metric.title]), METRIC, change("key"), "Metric")),
      el("label", {}, "of", select(methods.map((method) => [method, data.methods[method]]), METHOD, change("method"), "Method")),
      search, count),
    list, rest);
}

// One image -----------------------------------------------------------------------------------------------------------
const dialog = document.getElementById("detail");
const view = { x: 0.5, y: 0.5, zoom: 3 };
let current = null;
function slider(own, kind, chosen) {
  const kinds = Object.keys(own.pictures);
  const reference = kinds.includes("truth") ? "truth" : kinds.includes("naive") ? "naive" : kinds[0];
  let right = [kind, METHOD, "iagan_bp", "iagan"].find((key) => kinds.includes(key) && key !== reference) || kinds[kinds.length - 1];
  let left = own.pictures.naive && right !== "naive" ? "naive" : reference;
  const box = el("div", { class: "slider" });
  const range = el("input", { type: "range", min: 0, max: 100, step: "any", value: 50, "aria-label": "Divide between the two pictures", oninput: () => { box.style.setProperty("--split", `${range.value}%`); tell(); } });
  const tell = () => range.setAttribute("aria-valuetext", `${Math.round(range.value)} % ${titleOf(left)}, the rest ${titleOf(right)}`);
  const draw = () => {
    tell();
    const over = full(own.pictures[right], titleOf(right));
    over.classList.add("over");
    box.replaceChildren(full(own.pictures[left], titleOf(left)), over, el("div", { class: "handle" }), range);
  };
  draw();
  const options = kinds.map((key) => [key, titleOf(key)]);
  return el("div", {}, box, el("div", { class: "sides" },
    select(options, left, (value) => { left = value; draw(); }, "Left picture"),
    select(options, right, (value) => { right = value; draw(); chosen(value); }, "Right picture")));
}
function compare(own) {
  const grid = el("div", scrolling("Pictures and details", { class: `compare${own.pictures.truth ? "" : " untrue"}` }));
  const lenses = [];
  const zoomed = [];
  const update = () => {
    for (const lens of lenses) for (const [name, value] of [["left", view.x * (1 - 1 / view.zoom)], ["top", view.y * (1 - 1 / view.zoom)], ["width", 1 / view.zoom], ["height", 1 / view.zoom]]) lens.style.setProperty(name, `${value * 100}%`);
    for (const img of zoomed) { img.style.transformOrigin = `${view.x * 100}% ${view.y * 100}%`; img.style.transform = `scale(${view.zoom})`; }
  };
  const aim = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const share = (place, size) => Math.min(1, Math.max(0, ((place / size) * view.zoom - 0.5) / (view.zoom - 1)));
    view.x = share(event.clientX - box.left, box.width);
    view.y = share(event.clientY - box.top, box.height);
    update();
  };
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    [view.x, view.y] = [view.x, view.y].map((place, axis) => Math.min(1, Math.max(0, place + 0.1 * keys[event.key][axis])));
    update();
  };
  for (const [kind, shot] of Object.entries(own.pictures)) {
    const byKey = lenses.length ? {} : { tabindex: 0, role: "application", "aria-label": "Place of the detail: arrow keys move it", onkeydown: move };
    const lens = el("div", { class: "lens" });
    const crop = full(shot, `${titleOf(kind)}, enlarged`);
    crop.classList.add("coarse");
    lenses.push(lens);
    zoomed.push(crop);
    const whole = full(shot, titleOf(kind));
    const comparable = !["truth", "measurement", "uncertainty"].includes(kind);
    fill(grid, {}, [
      el("div", { class: "title" }, titleOf(kind)),
      el("div", { class: "cell whole", ...byKey, onpointermove: (event) => { if (event.pointerType === "mouse" || event.buttons) aim(event); }, onpointerdown: aim }, whole, lens),
      el("div", { class: "cell" }, crop),
      own.pictures.truth && (comparable ? el("div", { class: "cell error", role: "img", "aria-label": `Error of ${titleOf(kind)}` }, full(own.pictures.truth, ""), full(shot, "")) : el("div", { class: "cell none" }))]);
  }
  update();
  const zoom = select([2, 3, 4, 6, 8].map((value) => [value, `${value} ×`]), view.zoom, (value) => { view.zoom = Number(value); update(); }, "Enlargement");
  return [el("h4", {}, own.pictures.truth ? "Pictures, enlarged details, errors" : "Pictures, enlarged details"),
    el("div", { class: "controls" }, el("label", {}, "enlarged", zoom),
      own.pictures.truth && el("span", { class: "soft" }, "error 0", el("span", { class: "ramp" }), "a quarter of the range or more")),
    grid, el("p", { class: "note" }, "Point at a picture in the first row, or move the frame in the first with the arrow keys, to choose the detail of the second.", own.pictures.truth && " Third row: mean over the channels of |picture − truth|.")];
}
function imageTable(own) {
  const keys = data.metrics.map((metric) => metric.key).filter((key) => Object.values(own.metrics).some((values) => Number.isFinite(values[key])));
  const best = Object.fromEntries(keys.map((key) => [key, bestOf(key, Object.values(own.metrics).map((values) => values[key]))]));
  return el("div", scrolling("Table of this image", { class: "panel scroll" }), el("table", {},
    el("thead", {}, el("tr", {}, el("th", { class: "text first" }, "method"), keys.map((key) => el("th", {}, metrics[key].title)))),
    el("tbody", {}, methods.filter((method) => own.metrics[method]).map((method) => el("tr", {}, el("th", { class: "text first", scope: "row" }, data.methods[method]),
      keys.map((key) => { const value = own.metrics[method][key]; return el("td", { class: best[key](value) ? "best" : "" }, format(key, value)); }))))));
}
// The address names the picture that is open: "#image=NAME", with the run and the method where they are not the usual
// ones. Opening is a step of the history, so "back" closes; from one image to the next the step is the same.
function addressOf({ number, index, kind }) {
  const words = new URLSearchParams({ image: data.images[number].name });
  if (index !== data.images[number].runs.findIndex(Boolean)) words.set("run", data.runs[index].label);
  if (kind !== METHOD) words.set("picture", kind);
  return `#${words}`;
}
let left = null; // where the list was when a picture was opened from it
function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = data.images.findIndex((image) => image.name === words.get("image"));
  if (number < 0) return null;
  const own = data.images[number].runs;
  const index = data.runs.findIndex((run, i) => own[i] && run.label === words.get("run"));
  return { number, index: index < 0 ? own.findIndex(Boolean) : index, kind: words.get("picture") || METHOD };
}
function open(number, index = 0, kind = METHOD) {
  if (!data.images[number].runs[index]) index = data.images[number].runs.findIndex(Boolean);
  const place = { number, index, kind };
  if (dialog.open) history.replaceState(history.state, "", addressOf(place));
  else {
    left = scrollY;
    history.pushState({ opened: true }, "", addressOf(place));
  }
  show(place);
}
function follow() {
  const place = fromAddress();
  if (place) { show(place); return; }
  if (dialog.open) dialog.close();
  // A browser that goes back goes to the section of an earlier click, too: the list stays where it was instead.
  const top = left;
  left = null;
  if (top !== null) requestAnimationFrame(() => scrollTo({ top, behavior: "instant" }));
}
function show(place) {
  const { number, index, kind } = current = place;
  const image = data.images[number];
  const own = image.runs[index];
  const rank = order.indexOf(number);
  const step = (by) => () => { if (order.length) open(order[(rank + by + order.length) % order.length], index, current.kind); };
  const chosen = (value) => { current.kind = value; history.replaceState(history.state, "", addressOf(current)); };
  const series = image.runs.map((one, i) => one && one.curves && { curves: one.curves, paint: runColor(i), name: data.runs[i].label }).filter(Boolean);
  const focused = dialog.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  dialog.setAttribute("aria-label", image.name);
  dialog.replaceChildren(
    el("div", { class: "bar" }, el("h3", {}, image.name),
      several && select(data.runs.map((run, i) => [i, run.label]).filter(([i]) => image.runs[i]), index, (value) => open(number, Number(value), current.kind), "Run"),
      el("button", { class: "plain", type: "button", onclick: step(-1), "aria-label": "Previous image" }, "←"),
      el("button", { class: "plain", type: "button", onclick: step(1), "aria-label": "Next image" }, "→"),
      el("button", { class: "plain", type: "button", onclick: () => dialog.close(), "aria-label": "Close" }, "✕")),
    el("div", { class: "inside" },
      el("div", { class: "two" }, slider(own, kind, chosen), el("div", {}, imageTable(own), el("div", { style: { height: "14px" } }), facts(own.facts))),
      compare(own),
      series.length > 0 && [el("h4", {}, "Curves"), el("div", { class: "charts" }, Object.keys(CURVES).map((key) => curveChart(key, series, 1))),
        several && el("div", { class: "legend" }, series.map((one) => el("span", {}, el("span", { class: "dot", style: { background: one.paint } }), one.name)))],
      el("h4", {}, "Files"), links(own.files)));
  if (!dialog.open) dialog.showModal();
  const again = focused && [...dialog.querySelectorAll("[aria-label]")].find((node) => node.getAttribute("aria-label") === focused);
  if (again) again.focus({ preventScroll: true });
  dialog.scrollTop = 0;
}
dialog.addEventListener("close", () => {
  if (!fromAddress()) return; // the address has gone first
  if (history.state && history.state.opened) history.back();
  else history.replaceState(null, "", location.href.split("#")[0]);
});
addEventListener("popstate", follow);
dialog.addEventListener("keydown", (event) => {
  if (!current || event.target.closest("input, select, [role=region], [role=application]")) return;
  const label = { ArrowLeft: "Previous image", ArrowRight: "Next image" }[event.key];
  if (label) dialog.querySelector(`[aria-label="${label}"]`).click();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// Settings ------------------------------------------------------------------------------------------------------------
function failures() {
  const failed = data.runs.flatMap((run) => run.failed.map((one) => [run, one]));
  if (!failed.length) return null;
  return el("section", { id: "failed" }, el("h2", {}, "Failed"), el("div", { class: "panel", style: { padding: "12px 18px" } },
    failed.map(([run, one]) => el("div", {}, el("b", {}, one.name), several ? ` (${run.label})` : "", ": ", el("span", { class: "failed" }, one.reason)))));
}
function settings() {
  return el("section", { id: "settings" }, el("h2", {}, "Settings, environment, files"), data.runs.map((run) =>
    el("details", { class: "panel", open: several ? null : "" }, el("summary", {}, run.label), el("div", {},
      el("div", {}, el("h3", {}, "Configuration"), el("pre", scrolling(`Configuration of ${run.label}`), run.config || "config.yaml is not there")),
      el("div", {}, el("h3", {}, "Environment"), Object.keys(run.environment).length ? facts(run.environment) : el("p", { class: "note" }, "not recorded"),
        el("h3", { style: { "margin-top": "16px" } }, "Files"), links(run.links))))));
}

document.getElementById("main").append(...[summary(), distributions(), curves(), ends(), images(), failures(), settings()].filter(Boolean));
head();
follow();
