/* The page of the report. All texts come from the JSON in #content, and are shown as text and never as HTML.
   The state of the page is in its address: #metric=NAME&sort=COLUMN:asc&filter=WORDS&open=SETTING&curve=NAME&cost=NAME. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("content").textContent);
  const main = data.metrics.filter((each) => !each.companion);
  const state = { metric: main[0].name, sort: "", filter: "", open: [], curve: "", cost: data.cost || data.costs[0] || "" };
  let table;

  function node(kind, properties, ...children) {
    const made = document.createElement(kind);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name === "class") made.className = value;
      else if (name === "style") Object.assign(made.style, value);
      else if (name.startsWith("data-")) made.setAttribute(name, value);
      else made[name] = value;
    }
    made.append(...children.filter((each) => each !== null && each !== undefined));
    return made;
  }

  function shown(value, digits = 5) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    const rounded = Number(value.toPrecision(digits));
    return Math.abs(rounded) < 1e7 ? String(rounded) : rounded.toExponential();
  }

  const numeric = (value) => (value === null || value === "" || !Number.isFinite(Number(value)) ? null : Number(value));

  function compare(a, b, direction) {
    const [x, y] = [numeric(a), numeric(b)];
    const empty = (value) => value === null || value === undefined || value === "" || value === "nan";
    if (x !== null && y !== null) return x - y;
    if (empty(a) || empty(b)) return (empty(a) ? 1 : 0) - (empty(b) ? 1 : 0) === 0 ? 0 : (empty(a) ? 1 : -1) * (direction === "desc" ? -1 : 1);
    if (x !== null || y !== null) return x !== null ? -1 : 1;
    return String(a).localeCompare(String(b));
  }

  // The address

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (main.some((each) => each.name === given.get("metric"))) state.metric = given.get("metric");
    if (data.curves[given.get("curve")]) state.curve = given.get("curve");
    if (against().includes(given.get("cost"))) state.cost = given.get("cost");
    if (!against().includes(state.cost)) state.cost = against()[0] || "";
    state.sort = given.get("sort") || "";
    state.filter = given.get("filter") || "";
    state.open = given.getAll("open");
    if (!data.curves[state.curve]) state.curve = data.curves[state.metric] ? state.metric : Object.keys(data.curves)[0] || "";
  }

  function write() {
    const now = new URLSearchParams();
    for (const name of ["metric", "sort", "filter", "curve", "cost"]) if (state[name]) now.set(name, state[name]);
    for (const each of state.open) now.append("open", each);
    const address = "#" + now.toString();
    if (address !== location.hash) history.replaceState(null, "", address);
  }

  // The leaderboard

  const against = () => [...data.costs, ...data.objectives.filter((each) => each !== state.metric)];
  const index = (name) => data.metrics.findIndex((each) => each.name === name);

  function rows() {
    const differences = data.differences[state.metric];
    const apart = new Map(differences.rows.map((each) => [each[0], each]));
    return data.rows.map((row, place) => {
      const made = { place, id: row.id, label: row.id, n: row.n, picture: row.picture };
      row.values.forEach((value, i) => (made["o" + i] = value));
      data.metrics.forEach((_, i) => {
        made["m" + i] = row.mean[i];
        made["h" + i] = row.half[i];
        made["r" + i] = row.ratio[i];
      });
      row.cost.forEach((value, i) => (made["c" + i] = value));
      const difference = apart.get(place);
      made.d = place === differences.best ? 0 : difference ? difference[2] : null;
      made.verdict = place === differences.best ? "best" : difference ? difference[4] : "";
      made.dh = difference ? difference[3] : null;
      [made.f, made.fh] = data.fresh[place] || [null, null];
      made._children = row.runs.map((run) => {
        const child = { place, id: run.name, label: run.seed === null ? run.name : "seed " + run.seed, run: true, n: null };
        run.mean.forEach((value, i) => (child["m" + i] = value));
        run.cost.forEach((value, i) => (child["c" + i] = value));
        return child;
      });
      return made;
    });
  }

  function columns() {
    const cell = (render) => (each) => render(each.getValue(), each.getRow().getData());
    const title = (each) => node("span", {}, each.getValue());
    const sorter = (a, b, one, other, column, direction) => compare(a, b, direction);
    const text = (value, row) => node("span", row.run ? { title: row.id } : {}, String(value ?? ""));
    const number = (digits) => cell((value) => node("span", { class: "number" }, shown(value, digits)));
    const column = (name, field, formatter, more) => ({ title: name, field, formatter, sorter, titleFormatter: title, headerTooltip: false, ...more });
    const right = { hozAlign: "right", headerHozAlign: "right" };
    const swatch = (row) => node("span", { class: "swatch", style: { background: data.colours[row.place % data.colours.length] } });
    const made = [
      column("setting", "label", cell((value, row) => (row.run ? text(value, row) : node("span", { title: row.id }, swatch(row), data.options.length ? "#" + (row.place + 1) : value))), { minWidth: 110, maxWidth: 420 }),
    ];
    data.options.forEach((name, i) => made.push(column(name, "o" + i, cell(text), { maxWidth: 260 })));
    made.push(column("n", "n", cell(text), right));
    data.metrics.forEach((metric, i) => {
      const value = cell((mean, row) => node("span", { class: "number" }, shown(mean), row["h" + i] === null || row["h" + i] === undefined ? null : node("span", { class: "half" }, " \u00b1 " + shown(row["h" + i], 2))));
      made.push(column(metric.name, "m" + i, value, right));
      if (data.rows.some((row) => row.ratio[i] !== null)) made.push(column(metric.name + " / floor", "r" + i, number(3), right));
      if (metric.name === state.metric && data.rows.length > 1) {
        const difference = cell((mean, row) => (row.run || row.verdict === "" ? node("span") : node("span", { class: "number " + (row.verdict === "differs" ? "apart" : "tied"), title: row.verdict }, row.verdict === "best" ? "best" : (mean > 0 ? "+" : "") + shown(mean, 3) + (row.dh === null ? "" : " \u00b1 " + shown(row.dh, 2)))));
        made.push(column("to the best", "d", difference, right));
      }
    });
    data.costs.forEach((name, i) => made.push(column(name, "c" + i, number(4), right)));
    const fresh = cell((mean, row) => node("span", { class: "number" }, shown(mean), row.run || row.fh === null ? null : node("span", { class: "half" }, " \u00b1 " + shown(row.fh, 2))));
    if (Object.keys(data.fresh).length) made.push(column(main[0].name + " (fresh seeds)", "f", fresh, right));
    return made;
  }

  const field = (name) => {
    const found = columns().find((each) => each.title === name);
    return found ? found.field : null;
  };

  function matches(row, words) {
    const named = new Map(columns().map((each) => [each.title, row[each.field]]));
    return words.every((word) => {
      const split = /^(.+?)(<=|>=|=|<|>)(.*)$/.exec(word);
      if (split && named.has(split[1])) {
        const [value, wanted] = [named.get(split[1]), split[3]];
        if (split[2] === "=") return numeric(value) !== null && numeric(wanted) !== null ? numeric(value) === numeric(wanted) : String(value) === wanted;
        if (numeric(value) === null || numeric(wanted) === null) return false;
        const difference = numeric(value) - numeric(wanted);
        return split[2][0] === "<" ? difference < 0 || (split[2] === "<=" && difference === 0) : difference > 0 || (split[2] === ">=" && difference === 0);
      }
      const texts = [row.label, ...[...named.values()].map((each) => shown(each)), ...(row._children || []).map((each) => each.id)];
      return texts.some((each) => String(each).toLowerCase().includes(word.toLowerCase()));
    });
  }

  const filter = () => {
    const words = state.filter.split(/\s+/).filter(Boolean);
    return (row) => row.run || !words.length || matches(row, words);
  };

  function sorting() {
    const [, name, direction] = /^(.*?)(?::(asc|desc))?$/.exec(state.sort);
    const known = field(name);
    if (known) return [{ column: known, dir: direction || "asc" }];
    const metric = data.metrics[index(state.metric)];
    return [{ column: "m" + index(state.metric), dir: metric.higher ? "desc" : "asc" }];
  }

  function build(place) {
    const few = data.rows.length <= 300;
    table = new Tabulator(place, {
      data: rows(),
      columns: columns(),
      index: "id",
      layout: "fitDataFill",
      renderVertical: few ? "basic" : "virtual",
      height: data.rows.length > 40 ? "640px" : false,
      dataTree: true,
      dataTreeElementColumn: "label",
      dataTreeStartExpanded: (row) => state.open.includes(row.getData().id),
      dataTreeFilter: false,
      dataTreeSort: false,
      initialSort: sorting(),
      initialFilter: filter(),
      headerSortClickElement: "header",
      placeholder: "no setting matches the filter",
      rowFormatter: (row) => {
        const [one, element] = [row.getData(), row.getElement()];
        element.classList.toggle("seed", Boolean(one.run));
        element.classList.toggle("best", !one.run && one.verdict === "best");
        element.dataset[one.run ? "run" : "setting"] = one.id;
      },
    });
    const open = (row, now) => {
      const id = row.getData().id;
      state.open = state.open.filter((each) => each !== id).concat(now ? [id] : []);
      write();
    };
    table.on("dataTreeRowExpanded", (row) => open(row, true));
    table.on("dataTreeRowCollapsed", (row) => open(row, false));
    table.on("dataSorted", (sorters) => {
      if (!sorters.length || !sorters[0].column) return;
      const name = sorters[0].column.getDefinition().title;
      const chosen = name + ":" + sorters[0].dir;
      const usual = sorting()[0];
      if (!state.sort && sorters[0].field === usual.column && sorters[0].dir === usual.dir) return;
      state.sort = chosen;
      write();
    });
    table.on("renderComplete", below);
    return new Promise((resolve) => table.on("tableBuilt", resolve));
  }

  const visible = () => (table ? table.getData("active").filter((row) => !row.run) : []);

  // What is below the table

  function plain(header, lines, numbers = [], classes = () => "") {
    const line = (kind, values) => values.map((value, i) => node(kind, { class: numbers.includes(i) ? "number" : "" }, value));
    return node("table", { class: "plain" }, node("thead", {}, node("tr", {}, ...line("th", header))), node("tbody", {}, ...lines.map((each) => node("tr", { class: classes(each) }, ...line("td", each)))));
  }

  const name = (place) => node("span", {}, node("span", { class: "swatch", style: { background: data.colours[place % data.colours.length] } }), node("span", { class: "quiet" }, "#" + (place + 1) + " "), data.rows[place].id);
  const opaque = (colour, part) => colour + Math.round(part * 255).toString(16).padStart(2, "0");
  const places = {};
  let drawnFor = "";

  function below() {
    const rows = visible();
    places.count.textContent = rows.length + " of " + data.rows.length + " settings";
    const key = JSON.stringify([state.metric, state.curve, state.cost, rows.map((row) => row.place)]);
    if (key === drawnFor) return;
    drawnFor = key;
    curves(rows);
    cost(rows);
    differences();
    importance();
    samples(rows);
  }

  const axis = { stroke: "#475467", grid: { stroke: "#eef0f4", width: 1 }, ticks: { stroke: "#dfe3ea", width: 1 }, font: "12px system-ui, sans-serif" };
  const axes = (x, y) => [{ ...axis, label: x, labelSize: 22, labelFont: "12px system-ui, sans-serif" }, { ...axis, label: y, labelSize: 22, labelFont: "12px system-ui, sans-serif", size: 64, values: (_, all) => all.map((each) => (each === null ? "" : shown(each, 3))) }];
  // Logarithmic where values span more than a factor of three, with a little space at the ends.
  function scale(values) {
    const known = values.filter((each) => typeof each === "number");
    const [low, high] = [Math.min(...known), Math.max(...known)];
    if (low > 0 && high > 3 * low) return { distr: 3, range: [low / 1.12, high * 1.12] };
    const space = 0.08 * (high - low || Math.abs(high) || 1);
    return { distr: 1, range: [low - space, high + space] };
  }
  const width = (place) => Math.max(320, place.clientWidth || 680);

  function curves(rows) {
    const found = data.curves[state.curve];
    places.curves.replaceChildren();
    if (!found) return;
    const drawn = rows.filter((row) => found.lines[row.place]).slice(0, 10);
    if (!drawn.length) return;
    const tables = drawn.map((row) => {
      const [step, ...values] = found.lines[row.place];
      return [found.steps[step], ...values];
    });
    const joined = uPlot.join(tables);
    const series = [{}];
    const bands = [];
    drawn.forEach((row, i) => {
      const colour = data.colours[row.place % data.colours.length];
      series.push({ label: row.id, stroke: colour, width: 1.8, spanGaps: true, points: { show: tables[i][0].length < 4 } });
      if (tables[i].length === 4) {
        series.push({ stroke: "transparent", width: 0, spanGaps: true, points: { show: false } }, { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } });
        bands.push({ series: [series.length - 1, series.length - 2], fill: opaque(colour, 0.13) });
      }
    });
    new uPlot({ width: width(places.curves), height: 300, series, bands, legend: { show: false }, cursor: { points: { show: false } }, scales: { x: { time: false }, y: scale(tables.flatMap((each) => each.slice(1).flat())) }, axes: axes("step", state.curve) }, joined, places.curves);
    places.curves.append(node("div", { class: "legend" }, ...drawn.map((row) => name(row.place))));
  }

  function cost(rows) {
    places.cost.replaceChildren();
    const at = data.costs.indexOf(state.cost);
    const field = at < 0 ? "m" + index(state.cost) : "c" + at;
    const metric = index(state.metric);
    const higher = at < 0 && (data.metrics[index(state.cost)] || {}).higher;
    const best = new Set((data.fronts[state.metric] || {})[state.cost] || []);
    const points = rows.map((row) => [numeric(row[field]), numeric(row["m" + metric]), row.place]).filter((each) => each[0] !== null && (at < 0 || each[0] > 0) && each[1] !== null).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    if (!points.length) return;
    const values = [points.map((each) => each[0]), points.map((each) => each[1]), points.map((each) => (best.has(each[2]) ? each[1] : null))];
    const hover = node("div", { class: "hover" }, "Large points are the Pareto front: no other setting is as " + (at < 0 ? "good in both and better in one." : "cheap and better."));
    const dots = (plot) => {
      points.forEach((each) => {
        const [x, y] = [plot.valToPos(each[0], "x", true), plot.valToPos(each[1], "y", true)];
        plot.ctx.fillStyle = data.colours[each[2] % data.colours.length];
        plot.ctx.beginPath();
        plot.ctx.arc(x, y, (best.has(each[2]) ? 6 : 4) * devicePixelRatio, 0, 2 * Math.PI);
        plot.ctx.fill();
      });
    };
    const tell = (plot) => {
      const { left, top } = plot.cursor;
      if (left === null || left < 0) return;
      const distance = (each) => Math.hypot(plot.valToPos(each[0], "x") - left, plot.valToPos(each[1], "y") - top);
      const near = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      if (distance(near) < 30) hover.replaceChildren(name(near[2]), ": " + shown(near[1]) + " at " + shown(near[0], 4) + " " + state.cost);
    };
    new uPlot(
      {
        width: width(places.cost), height: 300, legend: { show: false }, cursor: { points: { show: false } }, hooks: { draw: [dots], setCursor: [tell] },
        scales: { x: { time: false, ...scale(values[0]) }, y: scale(values[1]) },
        series: [{}, { stroke: "transparent", points: { show: false } }, { stroke: "#d55e00", width: 1.5, spanGaps: true, paths: uPlot.paths.stepped({ align: higher ? -1 : 1 }), points: { show: false } }],
        axes: axes(state.cost, state.metric).map((each, i) => (i ? each : { ...each, values: (_, all) => all.map((one) => (one === null ? "" : shown(one, 3))) })),
      },
      values,
      places.cost,
    );
    places.cost.append(hover);
  }

  function differences() {
    const found = data.differences[state.metric];
    const signed = (value) => (value === null ? "" : (value > 0 ? "+" : "") + shown(value, 3));
    const lines = found.rows.map(([place, n, mean, half, verdict]) => [name(place), String(n), signed(mean) + (half === null ? "" : " \u00b1 " + shown(half, 2)), node("span", { class: verdict === "differs" ? "apart" : "tied" }, verdict)]);
    const best = data.rows[found.best];
    places.differences.replaceChildren(...(best && lines.length ? [node("p", { class: "quiet" }, "Best: " + best.id + ". The difference of " + state.metric + " to it over equal seeds, with its 95% interval."), node("div", { class: "scroll" }, plain(["setting", "seeds", "difference", "verdict"], lines, [1, 2]))] : [node("p", { class: "quiet" }, "There is one setting.")]));
  }

  function importance() {
    const found = data.importance[state.metric];
    const meter = (share) => node("span", {}, node("span", { class: "meter", style: { width: Math.round(160 * share) + "px" } }), Math.round(100 * share) + "%");
    const lines = found.options.map(([option, levels, share, best]) => [option, String(levels), meter(share), best]);
    if (found.seeds !== null) lines.push([node("span", { class: "quiet" }, "seeds"), "", meter(found.seeds), ""]);
    places.importance.replaceChildren(...(lines.length ? [node("p", { class: "quiet" }, "Share of the variance of the ranks of " + state.metric + " that each option explains by itself (epsilon squared)."), plain(["option", "values", "share", "best value"], lines, [1])] : [node("p", { class: "quiet" }, "There are too few runs to tell.")]));
  }

  function samples(rows) {
    const found = rows.filter((row) => row.picture);
    places.samplesTitle.hidden = !found.length;
    places.samples.replaceChildren(...found.map((row) => node("figure", {}, node("img", { src: row.picture, alt: "samples of " + row.id, loading: "lazy" }), node("figcaption", {}, name(row.place)))));
  }

  function select(label, values, key, changed) {
    const box = node("select", {}, ...values.map((value) => node("option", { value }, value)));
    box.value = state[key];
    box.addEventListener("change", () => {
      state[key] = box.value;
      changed();
      write();
    });
    return values.length > 1 ? node("label", {}, label + " ", box) : null;
  }

  function page() {
    const search = node("input", { type: "search", placeholder: "filter: words, or lr<0.01", value: state.filter });
    search.addEventListener("input", () => {
      state.filter = search.value;
      table.setFilter(filter());
      write();
    });
    const reset = node("button", { type: "button" }, "reset");
    reset.addEventListener("click", () => {
      history.replaceState(null, "", "#");
      location.reload();
    });
    const metric = () => {
      if (data.curves[state.metric]) state.curve = state.metric;
      state.sort = "";
      write();
      location.reload();
    };
    places.count = node("span", { class: "quiet" });
    const seeds = data.rows.reduce((sum, row) => sum + row.n, 0);
    const board = node("div", { id: "leaderboard" });
    for (const key of ["curves", "cost", "differences", "importance"]) places[key] = node("div", { id: key });
    places.samples = node("div", { class: "samples", id: "samples" });
    places.samplesTitle = node("h2", {}, "Samples of equal seeds");
    const front = data.best.map((place) => [name(place), ...data.objectives.map((each) => [data.rows[place].mean[index(each)], data.rows[place].half[index(each)]]).map(([mean, half]) => shown(mean) + (half === null ? "" : " \u00b1 " + shown(half, 2)))]);
    const box = (title, place, control) => node("section", {}, node("h2", {}, title), control || null, place);
    const differing = data.facts.filter((each) => each[1].length > 1).map(([fact, values]) => [fact, values.map(([value, count]) => value + " (" + count + ")").join(", ")]);
    const shared = data.facts.filter((each) => each[1].length === 1).map(([fact, values]) => fact + " " + values[0][0]);
    const references = (each) => Object.entries(each.references).map(([kind, value]) => kind + " " + shown(value)).join(", ");
    document.getElementById("report").append(
      node("h1", {}, data.title),
      node("div", { class: "quiet" }, data.rows.length + " settings, " + seeds + " runs" + (data.trials.length ? ", " + data.trials.length + " without a result" : "")),
      node("div", { class: "bar" }, select("ranked by", main.map((each) => each.name), "metric", metric), search, reset, places.count),
      board,
      ...(data.objectives.length ? [node("h2", {}, "Pareto front of the objectives"), node("p", { class: "quiet" }, front.length + " settings of which no other one is as good in all objectives and better in one."), node("div", { id: "front" }, plain(["setting", ...data.objectives], front, data.objectives.map((_, i) => i + 1)))] : []),
      node("div", { class: "pair" },
        box("Learning curves", places.curves, node("div", { class: "quiet" }, select("of", Object.keys(data.curves), "curve", below), " mean and range over seeds, of the first settings in the table")),
        box("Quality against cost", places.cost, select("against", against(), "cost", below)),
        box("Which settings can be told apart", places.differences),
        box("Importance of options", places.importance)),
      places.samplesTitle, places.samples,
      ...(data.trials.length ? [node("h2", {}, "Without a result"), plain(["trial", "state", "reason"], data.trials.map(([trial, now, reason]) => [trial, node("span", { class: now === "failed" || now === "refused" ? now : "" }, now), reason]))] : []),
      node("h2", {}, "How it was measured"),
      plain(["metric", "protocol", "references", "what it depends on"], main.map((each) => [each.name, each.hash, references(each), each.described]), [], () => "measured"),
      ...(data.facts.length ? [node("h2", {}, "Code and versions" + (differing.length ? ": the runs differ" : ""))] : []),
      ...(differing.length ? [plain(["fact", "values"], differing, [], () => "differs")] : []),
      ...(shared.length ? [node("p", { class: "quiet" }, "All runs: " + shared.join(", ") + ".")] : []),
      ...(data.notes.length ? [node("h2", {}, "Notes"), node("ul", {}, ...data.notes.map((each) => node("li", {}, each)))] : []),
    );
    if (!Object.keys(data.curves).length) places.curves.parentElement.remove();
    if (!against().length) places.cost.parentElement.remove();
    return board;
  }

  read();
  build(page()).then(() => {
    below();
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  });
  addEventListener("hashchange", () => location.reload());
})();
