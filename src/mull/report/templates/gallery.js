// Puzzles as coloured grids. Only digits are painted; every other text goes in by textContent.
const gallery = (shared) => {
  "use strict";
  const { data, by, make, mean, cells, order } = shared;
  const COLOURS = ["#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25"];
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 12, CELL = 16, TOP = 6;

  const svg = (tag, attributes, text) => {
    const node = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    if (text !== undefined) node.textContent = text;
    return node;
  };
  // Rows as they stand: digits are cells, other characters are letters in a cell, however ragged.
  const paint = (text, room, truth) => {
    const rows = text.split("\n").slice(0, 40).map((row) => [...row].slice(0, 100));
    const wide = Math.max(1, ...rows.map((row) => row.length)), high = rows.length;
    const side = Math.min(CELL, room / Math.max(wide, high, 1));
    const box = svg("svg", { class: side < 5 ? "cells fine" : "cells", viewBox: `0 0 ${wide} ${high}`, role: "img" });
    box.style.width = (side * wide).toFixed(1) + "px";
    box.style.height = (side * high).toFixed(1) + "px";
    const paths = new Map();
    const right = truth === undefined || truth === null ? null : truth.split("\n");
    const same = right && right.length === high && rows.every((row, y) => row.length === right[y].length);
    const letters = [], wrong = [];
    rows.forEach((row, y) => row.forEach((c, x) => {
      const digit = c >= "0" && c <= "9" ? Number(c) : -1;
      paths.set(digit, (paths.get(digit) || "") + `M${x} ${y}h1v1h-1z`);
      if (digit < 0) letters.push([x, y, c]);
      if (same && right[y][x] !== c) wrong.push([x, y]);
    }));
    [...paths].forEach(([digit, d]) => box.append(svg("path", digit < 0 ? { d, class: "odd" } : { d, fill: COLOURS[digit] })));
    letters.forEach(([x, y, c]) => box.append(svg("text", { x: x + 0.5, y: y + 0.76 }, c)));
    wrong.forEach(([x, y]) => box.append(svg("circle", { cx: x + 0.5, cy: y + 0.5, r: 0.17 })));
    box.setAttribute("aria-label", `${high} rows of up to ${wide} cells`);
    return box;
  };
  // Words and fences are read as text, what could be a grid is seen as cells.
  const said = (text) => /[^\s\d]{3}/.test(text) || text.split("\n").some((row) => row.length > 40) ? make("pre", text, "cells said") : paint(text, 170);
  const framed = (picture, caption, kind) => {
    const box = make("figure", null, "framed" + (kind ? " " + kind : ""));
    const said = make("figcaption");
    (Array.isArray(caption) ? caption : [caption]).forEach((line) => said.append(make("span", line)));
    box.append(picture, said);
    return box;
  };
  const empty = (why) => make("div", why, "cells none");

  const puzzleOf = (p) => data.puzzles[p.grids.puzzle];
  const counted = (n, what) => n + " " + what + (n === 1 ? "" : "s");
  const scoresOf = (p, group) => p.scores.map((name, at) => {
    const known = p.rows.filter((r) => r[0] === group && r[4 + at] !== null).map((r) => r[4 + at]);
    if (!known.length) return null;
    const value = name.endsWith("logprob") ? mean(known) : Math.max(...known);
    return `${name} ${Number(value.toPrecision(3))}`;
  }).filter((x) => x !== null);

  const demonstrations = (p, room) => {
    const row = make("div", null, "pairs");
    puzzleOf(p).train.forEach(([input, output], i) => {
      const pair = make("div", null, "pair");
      pair.append(framed(paint(input, room), "input " + (i + 1)), make("span", "→", "to"), framed(paint(output, room), "output " + (i + 1)));
      row.append(pair);
    });
    return row;
  };
  const answers = (p, room) => {
    const row = make("div", null, "pairs"), grids = p.grids, puzzle = puzzleOf(p);
    const test = puzzle.test.length > 1 ? `test input ${grids.index + 1} of ${puzzle.test.length}` : "test input";
    row.append(framed(paint(puzzle.test[grids.index], room), test), make("span", "→", "to"));
    row.append(framed(grids.truth === null ? empty("unknown") : paint(grids.truth, room), "truth", "truth"));
    row.append(make("span", null, "bar"));
    const known = new Map(p.groups.map((g) => [g[0], g]));
    grids.top.slice(0, TOP).forEach(([group, text]) => {
      const [, , count, verdict] = known.get(group);
      const attempt = grids.attempts.indexOf(group) + 1;
      const mark = verdict === null ? "" : verdict ? " ✓" : " ✗";
      const lines = [(attempt ? "attempt " + attempt : "not sent") + mark, counted(count, "vote"), ...scoresOf(p, group)];
      row.append(framed(paint(text, room, verdict ? null : grids.truth), lines, verdict ? "right" : ""));
    });
    if (!grids.top.length) row.append(framed(empty("none"), "no answer"));
    return row;
  };
  const heading = (p) => {
    const line = make("p", null, "what");
    const verdict = p.correct === null ? "" : p.grids.attempts.some((a) => p.groups.some((g) => g[0] === a && g[3])) ? "solved" : p.rows.some((r) => r[1]) ? "missed: a right answer is there" : "not solved";
    line.append(make("b", p.id), make("span", verdict, verdict === "solved" ? "yes" : "no"));
    const none = p.rows.filter((r) => r[0] < 0).length;
    line.append(make("span", counted(p.rows.length, "prediction") + ", " + counted(p.groups.filter((g) => g[0] >= 0).length, "answer") + (none ? `, ${none} without a grid` : ""), "muted"));
    return line;
  };
  const card = (p, small, large) => {
    const box = make("article", null, "puzzle");
    box.append(heading(p), demonstrations(p, small), answers(p, large));
    return box;
  };

  // What the list of problems has not: the size of the output, and how near the predictions are.
  const extra = [["cells", "cells of the output", (p) => (p.grids.truth || "").replace(/\n/g, "").length]];
  Object.entries(data.metrics).forEach(([key, title]) => extra.push(["grid " + key, title, (p) => p.grids.metrics[key] ?? null]));
  const state = { cell: 0, key: "position", down: false, page: 0 };
  const wanted = (p) => {
    const which = by("g-which").value, right = p.grids.attempts.some((a) => p.groups.some((g) => g[0] === a && g[3]));
    const covered = p.rows.some((r) => r[1]);
    return which === "all" || (which === "right" && right) || (which === "missed" && covered && !right) || (which === "wrong" && !right) || (which === "none" && p.answer === null);
  };
  const rowsOf = (at) => cells[at].rows.filter((row) => row.p.grids).map((row) => {
    extra.forEach(([key, , read]) => { row.values[key] = read(row.p); });
    return row;
  });
  const draw = () => {
    const found = order(rowsOf(state.cell).filter((row) => wanted(row.p)), state.key, state.down);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    by("g-list").replaceChildren(...found.slice(state.page * PAGE, (state.page + 1) * PAGE).map((row) => card(row.p, 84, 128)));
    by("g-count").textContent = found.length + " test inputs";
    by("g-where").textContent = "page " + (state.page + 1) + " of " + pages;
    by("g-back").disabled = state.page === 0;
    by("g-next").disabled = state.page >= pages - 1;
    by("g-turn").textContent = state.down ? "largest first" : "smallest first";
  };
  const failures = () => {
    const kinds = new Map();
    rowsOf(state.cell).forEach(({ p }) => p.grids.bad.forEach(([why, count, ...example]) => {
      const kind = kinds.get(why) || { count: 0, shown: [] };
      kind.count += count;
      kind.shown.push([p, ...example]);
      kinds.set(why, kind);
    }));
    by("g-bad").replaceChildren(...[...kinds].sort((a, b) => b[1].count - a[1].count).map(([why, { count, shown }]) => {
      const box = make("div", null, "bad");
      let at = 0;
      const put = () => {
        const [p, text, view, asked, truth, detail] = shown[at % shown.length];
        const row = make("div", null, "pairs");
        row.append(framed(paint(asked, 110), "asked"), make("span", "→", "to"));
        row.append(framed(text ? said(text) : empty("nothing"), "said"));
        if (truth !== null) row.append(framed(paint(truth, 110), "truth", "truth"));
        const more = make("button", `another of ${shown.length}`);
        more.type = "button";
        more.hidden = shown.length < 2;
        more.onclick = () => { at += 1; put(); };
        const head = make("p", null, "what");
        head.append(make("b", why), make("span", counted(count, "prediction"), "muted"));
        const meant = make("p", data.meanings[why] || "", "meant");
        if (detail) meant.append(make("span", detail, "detail"));
        box.replaceChildren(head, meant, row, make("p", p.id + (view && view !== "same" ? ", seen as " + view : ""), "note"), more);
      };
      put();
      return box;
    }));
  };
  const start = () => {
    const full = data.cells.map((c, i) => [c, i]).filter(([, i]) => rowsOf(i).length);
    if (!full.length) return;
    state.cell = full[0][1];
    const choose = () => {
      const heads = cells[state.cell].heads.filter(([key]) => key !== "gold" && key !== "answer").concat(extra);
      by("g-sort").replaceChildren(...heads.map(([key, title]) => { const o = make("option", "by " + (title === "#" ? "order" : title)); o.value = key; return o; }));
      by("g-sort").value = heads.some(([key]) => key === state.key) ? state.key : "position";
      state.key = by("g-sort").value;
      state.page = 0;
      draw();
      failures();
    };
    by("g-cell").append(...full.map(([c, i]) => { const o = make("option", c.label); o.value = i; return o; }));
    by("g-cell").hidden = full.length < 2;
    by("g-cell").onchange = () => { state.cell = Number(by("g-cell").value); choose(); };
    by("g-sort").onchange = () => { state.key = by("g-sort").value; state.page = 0; draw(); };
    by("g-turn").onclick = () => { state.down = !state.down; state.page = 0; draw(); };
    by("g-which").onchange = () => { state.page = 0; draw(); };
    by("g-back").onclick = () => { state.page -= 1; draw(); };
    by("g-next").onclick = () => { state.page += 1; draw(); };
    choose();
  };
  return { card, start };
};
