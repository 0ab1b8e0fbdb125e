/*
 * page.js - draws the report from the JSON in the page.
 *
 * Every section is a statement, its rows, and how to draw them (the head of the file in
 * sections/). All text from the history goes in as text nodes, never as markup. The x
 * axis of every plot is the op number; they share cursor and zoom.
 */
"use strict";
(() => {
const report = JSON.parse(document.getElementById("data").textContent);
const ZONES = {ZONE_DMA: "--c1", ZONE_NORMAL: "--c0", ZONE_HIGHMEM: "--c2", ZONE_MOVABLE: "--c3"};
const COLOURS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c7", "--c6"];
const DASHES = {min: [2, 3], low: [6, 4], high: [12, 4]};
const HEIGHT = 190, AXIS = 68, PAGE_KIB = 4, TABLE_ROWS = 5000;

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const whole = n => n.toLocaleString("en");

function element(name, className, text) {
	const e = document.createElement(name);
	if (className) e.className = className;
	if (text !== undefined) e.textContent = text;
	return e;
}

function size(kib) {
	for (const [unit, of] of [["GiB", 1 << 20], ["MiB", 1 << 10]])
		if (kib >= of) return `${(kib / of).toPrecision(3)} ${unit}`;
	return `${kib} KiB`;
}

function short(n) {
	for (const [unit, of] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
		if (Math.abs(n) >= of) return `${+(n / of).toPrecision(3)}${unit}`;
	return `${+n.toPrecision(3)}`;
}

function value(unit, n) {
	if (n === null || n === undefined) return "–";
	if (unit === "pages") return `${whole(n)} (${size(n * PAGE_KIB)})`;
	return `${Number.isInteger(n) ? whole(n) : n.toFixed(1)} ${unit}`;
}

/* ---- rows to columns ---- */

/* Where counts have a point: at the end of every stretch of ops that was counted together. */
function stretches() {
	const xs = [0];
	for (let x = report.bucket; x < report.ops; x += report.bucket) xs.push(x);
	if (report.ops) xs.push(report.ops);
	return xs;
}

/* One named column for each series; what was not counted is none. */
function pivot(rows) {
	const xs = stretches(), at = new Map(xs.map((x, i) => [x, i])), series = new Map();
	for (const {series: name, x, n} of rows) {
		if (!series.has(name)) series.set(name, xs.map(() => 0));
		series.get(name)[at.get(x)] += n;
	}
	return {xs, series};
}

/* A value holds until the next one, to the last op; `hold` is what others fall back on. */
function carry(xs, series, hold, banded) {
	const end = series.get(hold);
	for (const [name, values] of series)
		for (let i = 1; i < xs.length; i++)
			if (values[i] === null)
				values[i] = banded.has(name) && end ? end[i - 1] ?? values[i - 1] : values[i - 1];
}

function columns(rows, names, options) {
	const xs = [...new Set(rows.map(r => r.x).concat(options.hold ? [0, report.ops] : []))].sort((a, b) => a - b);
	const at = new Map(xs.map((x, i) => [x, i])), series = new Map(names.map(n => [n, xs.map(() => null)]));
	for (const row of rows)
		for (const name of names)
			if (row[name] !== null) series.get(name)[at.get(row.x)] = row[name];
	if (options.hold) {
		const banded = new Set(names.filter(n => !(options.dashed || []).includes(n)));
		if (series.get(options.hold)[0] === null && !options.panel)
			for (const name of banded) series.get(name)[0] = 0;
		carry(xs, series, options.hold, new Set([...banded].filter(n => n !== options.hold)));
	}
	return {xs, series};
}

/* ---- plots ---- */

function series_of(name, index, options, panel) {
	const dashed = (options.dashed || []).includes(name), banded = (options.band || []).includes(name);
	const own = panel && name === options.hold ? ZONES[panel] : undefined;
	const stroke = colour(own || (dashed ? "--c6" : banded ? ZONES[panel] || "--c6" : COLOURS[index % COLOURS.length]));
	const step = options.hold ? 1 : options.counts ? -1 : 0;
	return {
		label: name.replaceAll("_", " "), stroke, width: banded ? 0.01 : dashed ? 1.25 : 1.75, spanGaps: false,
		dash: dashed ? DASHES[name] : undefined,
		fill: options.counts ? stroke + "26" : undefined,
		paths: step ? uPlot.paths.stepped({align: step}) : undefined,
		points: {show: !step && !banded, size: 4},
		value: (u, v) => value(options.unit, v),
	};
}

function plot(holder, {xs, series}, options, panel) {
	const all = [...series.values()].flat().filter(v => v !== null);
	const log = options.scale === "log" && all.some(v => v > 0);
	const names = [...series.keys()], band = options.band || [];
	const axis = {stroke: colour("--soft"), grid: {stroke: colour("--grid"), width: 1}, ticks: {stroke: colour("--line"), width: 1}};
	const u = new uPlot({
		width: Math.max(holder.clientWidth, 240), height: HEIGHT, padding: [10, 12, 0, 0],
		cursor: {sync: {key: "op"}, drag: {x: true, y: false, setScale: true}, points: {size: 6}},
		scales: {
			x: {time: false, range: (u, min, max) => min === max ? [0, report.ops || 1] : [min, max]},
			y: log ? {distr: 3, log: 10} : {range: (u, min, max) => [Math.min(min ?? 0, 0), Math.max(max ?? 1, 1) * 1.06]},
		},
		axes: [
			{...axis, size: 30, values: (u, ticks) => ticks.map(short)},
			{...axis, size: AXIS, values: (u, ticks) => ticks.map(v => v === null ? "" : short(v))},
		],
		series: [{label: "op", value: (u, v) => v === null ? "–" : whole(v)},
			...names.map((name, i) => series_of(name, i, options, panel))],
		bands: band.length ? [{series: [names.indexOf(band[1]) + 1, names.indexOf(band[0]) + 1],
			fill: colour(ZONES[panel] || "--c6") + "55"}] : [],
	}, [xs, ...series.values()], holder);
	u.setScale("x", {min: 0, max: report.ops || 1});
	return u;
}

/* ---- sections ---- */

function objects(section) {
	return section.rows.map(row => Object.fromEntries(section.columns.map((name, i) => [name, row[i]])));
}

/* What is to be plotted: [title or null, columns] for each panel. */
function panels(section) {
	const options = section.options, rows = objects(section);
	if (options.counts) return rows.length ? [[null, pivot(rows)]] : [];
	const names = section.columns.filter(n => n !== "x" && n !== options.panel && n !== "free_pages");
	if (!options.panel) return rows.length ? [[null, columns(rows, names, options)]] : [];
	const by = new Map();
	for (const row of rows) {
		if (!by.has(row[options.panel])) by.set(row[options.panel], []);
		by.get(row[options.panel]).push(row);
	}
	const order = Object.keys(ZONES), rank = name => (order.indexOf(name) + order.length + 1) % (order.length + 1);
	return [...by].sort(([a], [b]) => rank(a) - rank(b))
		.filter(([, rows]) => rows.some(r => names.some(n => r[n] !== null && r[n] !== 0)))
		.map(([name, rows]) => [name, columns(rows, names, options)]);
}

function table(section) {
	const t = element("table", "rows"), head = t.createTHead().insertRow(), body = t.createTBody();
	const text = section.columns.map((_, i) => section.rows.some(r => typeof r[i] === "string"));
	section.columns.forEach((name, i) => head.append(element("th", text[i] ? "text" : "", name)));
	for (const row of section.rows.slice(0, TABLE_ROWS)) {
		const tr = body.insertRow();
		row.forEach((v, i) => tr.append(element("td", text[i] ? "text" : "",
			v === null ? "" : typeof v === "number" ? (Number.isInteger(v) ? whole(v) : v.toFixed(1)) : v)));
	}
	const holder = element("div", "scroll");
	holder.append(t);
	if (section.rows.length > TABLE_ROWS) holder.append(element("p", "", `the first ${whole(TABLE_ROWS)} rows`));
	return holder;
}

function folded(title, fill) {
	const d = element("details");
	d.append(element("summary", "", title));
	d.addEventListener("toggle", () => { if (d.open && d.childElementCount === 1) d.append(fill()); });
	return d;
}

function findings(section) {
	const list = element("ul", "findings");
	for (const {tone, finding} of objects(section)) list.append(element("li", tone, finding));
	return list;
}

let drawn = [];

function draw_section(section) {
	const s = element("section");
	s.id = section.id;
	s.append(element("h2", "", section.title), element("p", "", section.about));
	if (section.error) s.append(element("div", "none failed", section.error));
	else if (!section.rows.length) s.append(element("div", "none", "Nothing of the kind was recorded."));
	else if (section.options.draw === "list") s.append(findings(section));
	else if (section.options.draw === "table") s.append(table(section));
	else for (const [title, data] of panels(section)) {
		const holder = element("div", "plot");
		if (title) s.append(element("h3", "", title.replace("ZONE_", "")));
		s.append(holder);
		drawn.push({holder, data, options: section.options, panel: title});
	}
	if (section.truncated) s.append(element("div", "none failed", "There were more rows than this; see the limit in the report's foot."));
	s.append(folded("SQL", () => element("pre", "", section.sql)));
	if (section.options.draw === "plot" && section.rows.length)
		s.append(folded(`Numbers (${whole(section.rows.length)} rows)`, () => table(section)));
	return s;
}

function draw_plots() {
	for (const d of drawn) {
		if (d.u) d.u.destroy();
		d.u = plot(d.holder, d.data, d.options, d.panel);
	}
}

function head() {
	const h = document.getElementById("head"), m = report.machine, facts = element("ul", "facts");
	document.title = `${m.machine}: zoned report`;
	h.append(element("h1", "", m.machine));
	h.append(element("p", "under", `${whole(report.ops)} ops of a zoned machine, ${report.began} to ${report.ended} UTC`));
	for (const [name, text] of report.facts) {
		const li = element("li", "", `${name} `);
		li.append(element("b", "", text));
		facts.append(li);
	}
	h.append(facts);
	if (report.notice) h.append(element("p", "notice", report.notice));
	const keys = Object.keys(m);
	h.append(folded("Whole configuration", () => table({columns: ["name", "value"], rows: keys.map(k => [k, m[k] === null ? "" : String(m[k])])})));
}

head();
document.getElementById("sections").replaceChildren(...report.sections.map(draw_section));
document.getElementById("foot").textContent = `${report.sampling} Drag to zoom into a range of ops, double-click to go back. ` +
	`Made by zonectl ${report.version} on ${report.made} UTC.`;
draw_plots();
addEventListener("resize", () => {
	for (const d of drawn) d.u.setSize({width: Math.max(d.holder.clientWidth, 240), height: HEIGHT});
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw_plots);
})();
