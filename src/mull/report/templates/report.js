"use strict";
// Problems and candidates: sort, filter, page, open. All text goes in by textContent.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const PAGE = 50;
  const state = { cell: 0, key: "position", down: false, page: 0, open: null, sort: "votes", most: false };

  const make = (tag, text, kind) => {
    const node = document.createElement(tag);
    if (text !== undefined && text !== null) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const mean = (list) => (list.length ? list.reduce((a, b) => a + b, 0) / list.length : null);
  const show = (x) => (x === null || x === undefined ? "–" : typeof x === "number" && !Number.isInteger(x) ? String(Number(x.toPrecision(4))) : String(x));

  // One number or text a column; every one of them sorts.
  const columns = (cell) => {
    const list = [
      ["position", "#", (p, i) => i + 1],
      ["id", "problem", (p) => p.id],
      ["level", "level", (p) => p.level],
      ["gold", "gold", (p) => p.gold],
      ["answer", "answer", (p) => p.answer],
      ["correct", "right", (p) => (p.correct === null ? null : p.correct ? 1 : 0)],
      ["confidence", "share of vote", (p) => p.confidence],
      ["share", "right samples", (p) => mean(p.rows.map((r) => (r[1] ? 1 : 0)))],
      ["groups", "answers", (p) => p.groups.filter((g) => g[0] >= 0).length],
      ["unanswered", "unanswered", (p) => p.rows.filter((r) => r[0] < 0).length],
      ["tokens", "mean tokens", (p) => mean(p.rows.map((r) => r[3]))],
    ];
    const names = new Set();
    cell.problems.forEach((p) => p.scores.forEach((s) => names.add(s)));
    [...names].sort().forEach((name) => list.push(["score:" + name, name.startsWith("mean_") ? name : "mean " + name, (p) => {
      const at = p.scores.indexOf(name);
      return at < 0 ? null : mean(p.rows.map((r) => r[4 + at]).filter((x) => x !== null));
    }]));
    // A column that says nothing about any problem only takes room.
    return list.filter(([, , read]) => cell.problems.some((p, i) => read(p, i) !== null && read(p, i) !== undefined));
  };

  const cells = data.cells.map((cell) => {
    const heads = columns(cell);
    const rows = cell.problems.map((p, i) => ({ p, i, values: Object.fromEntries(heads.map(([k, , read]) => [k, read(p, i)])) }));
    return { cell, heads, rows };
  });

  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === null || a === undefined) return 2; // nothing comes last, up or down
    if (b === null || b === undefined) return -2;
    if (typeof a === "number" && typeof b === "number") return a < b ? -1 : 1;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const order = (rows, key, down) => rows.slice().sort((x, y) => {
    const c = compare(x.values[key], y.values[key]);
    return (Math.abs(c) === 2 ? c : down ? -c : c) || x.i - y.i;
  });

  // Only a page with puzzles brings what paints them.
  const pictures = typeof gallery === "undefined" ? null : gallery({ data, by, make, mean, cells, order });

  const wanted = (row) => {
    const p = row.p, which = by("which").value;
    const covered = p.rows.some((r) => r[1]);
    if (which === "right" && p.correct !== true) return false;
    if (which === "wrong" && p.correct !== false) return false;
    if (which === "missed" && !(p.correct === false && covered)) return false;
    if (which === "uncovered" && (p.correct === null || covered)) return false;
    if (which === "none" && p.answer !== null) return false;
    if (which === "failed" && p.failure === null) return false;
    const level = by("level").value;
    if (level !== "" && String(p.level) !== level) return false;
    const find = by("find").value.toLowerCase();
    return !find || [p.id, p.prompt, p.gold, p.answer].some((t) => t && String(t).toLowerCase().includes(find));
  };

  const bars = (p) => {
    const box = make("div", null, "votes");
    const most = Math.max(...p.groups.map((g) => g[2]), 1);
    const answers = p.groups.filter((g) => g[0] >= 0);
    const votes = (n) => n + (n === 1 ? " vote" : " votes");
    answers.slice(0, 12).forEach(([, answer, count, right]) => {
      const name = make("div", answer, "a mono");
      name.title = answer;
      const bar = make("div", null, "b" + (right ? " yes" : ""));
      bar.style.width = (100 * count) / most + "%";
      const track = make("div");
      track.append(bar);
      box.append(name, track, make("div", votes(count) + (right ? " ✓" : ""), right ? "yes" : "muted"));
    });
    const rest = answers.slice(12).reduce((a, g) => a + g[2], 0);
    if (rest) box.append(make("div", answers.length - 12 + " more answers", "a muted"), make("div"), make("div", votes(rest), "muted"));
    const none = p.rows.filter((r) => r[0] < 0).length;
    if (none) box.append(make("div", "no answer", "a muted"), make("div"), make("div", none + (none === 1 ? " sample" : " samples"), "muted"));
    return box;
  };

  const candidates = (p) => {
    const box = make("div");
    const answers = new Map(p.groups.map((g) => [g[0], g]));
    const heads = [["index", "sample"], ["answer", "answer"], ["votes", "votes"], ["right", "right"], ["how", "ended"], ["tokens", "tokens"]].concat(p.scores.map((s) => ["score:" + s, s]));
    const rows = p.rows.map((r, i) => {
      const values = { index: i, answer: r[0] < 0 ? null : answers.get(r[0])[1], votes: r[0] < 0 ? 0 : answers.get(r[0])[2], right: r[1] === null ? null : r[1] ? 1 : 0, how: r[2], tokens: r[3] };
      p.scores.forEach((s, j) => { values["score:" + s] = r[4 + j]; });
      return { i, values, text: p.texts[i] };
    });
    const pick = make("select");
    heads.forEach(([key, title]) => { const o = make("option", "sort by " + title); o.value = key; pick.append(o); });
    pick.value = heads.some(([k]) => k === state.sort) ? state.sort : "votes";
    const turn = make("button", state.most ? "smallest first" : "largest first");
    turn.type = "button";
    const only = make("select");
    [["texts", "with text"], ["all", "all candidates"]].forEach(([v, t]) => { const o = make("option", t); o.value = v; only.append(o); });
    const tools = make("div", null, "tools");
    tools.append(pick, turn, only);
    const list = make("div", null, "two");
    const draw = () => {
      state.sort = pick.value;
      turn.textContent = state.most ? "smallest first" : "largest first";
      list.replaceChildren();
      const some = rows.filter((r) => only.value === "all" || r.text !== undefined);
      const sorted = order(some, pick.value, !state.most);
      sorted.forEach((r) => {
        const v = r.values;
        const head = make("p", null, "note");
        const verdict = v.right === null ? "not graded" : v.right ? "right" : "wrong";
        head.append(make("span", verdict, v.right ? "yes" : v.right === 0 ? "no" : ""), ` · sample ${r.i + 1} · ${v.answer === null ? "no answer" : v.votes + (v.votes === 1 ? " vote" : " votes")} · ${v.tokens} tokens · ${v.how}`);
        p.scores.forEach((s) => head.append(` · ${s} ${show(v["score:" + s])}`));
        const card = make("div");
        card.append(head);
        if (r.text !== undefined) card.append(make("pre", r.text));
        list.append(card);
      });
      if (some.length < rows.length) list.append(make("p", `${rows.length - some.length} candidates without text in this page are not listed.`, "note"));
    };
    pick.onchange = draw;
    only.onchange = draw;
    turn.onclick = () => { state.most = !state.most; draw(); };
    draw();
    box.append(tools, list);
    return box;
  };

  const detail = (row, width) => {
    const p = row.p, line = make("tr"), cell = make("td", null, "detail");
    cell.colSpan = width;
    if (p.failure !== null) cell.append(make("h3", "Failed"), make("pre", p.failure));
    if (p.grids && pictures) {
      const asked = make("details");
      asked.append(make("summary", "As the model reads it"), make("pre", p.prompt));
      cell.append(make("h3", "Puzzle"), pictures.card(p, 110, 170), asked);
    } else cell.append(make("h3", "Problem"), make("pre", p.prompt));
    if (p.rows.length) cell.append(make("h3", "Votes"), bars(p), make("h3", "Candidates"), candidates(p));
    line.append(cell);
    return line;
  };

  const cellOf = (key, value) => {
    const td = make("td");
    if (key === "correct") {
      td.textContent = value === null ? "–" : value ? "✓" : "✗";
      td.className = value === null ? "muted" : value ? "yes" : "no";
    } else if (key === "share" || key === "confidence") {
      td.textContent = value === null ? "–" : (100 * value).toFixed(0) + " %";
      td.className = "r";
    } else {
      td.textContent = key === "tokens" && value !== null ? value.toFixed(0) : show(value);
      if (typeof value === "number") td.className = "r";
      else td.title = value === null || value === undefined ? "" : value;
    }
    return td;
  };

  const draw = () => {
    const { heads, rows } = cells[state.cell];
    const found = order(rows.filter(wanted), state.key, state.down);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const head = make("tr");
    heads.forEach(([key, title]) => {
      const th = make("th", title, rows.some((r) => typeof r.values[key] === "number") && key !== "correct" ? "r" : "");
      th.tabIndex = 0;
      if (state.key === key) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      const sort = () => {
        state.down = state.key === key ? !state.down : false;
        state.key = key; state.page = 0; draw();
      };
      th.onclick = sort;
      th.onkeydown = (e) => { if (e.key === "Enter") sort(); };
      head.append(th);
    });
    by("problems").tHead.replaceChildren(head);
    const body = by("problems").tBodies[0];
    body.replaceChildren();
    found.slice(state.page * PAGE, (state.page + 1) * PAGE).forEach((row) => {
      const line = make("tr", null, "p" + (state.open === row ? " open" : ""));
      line.tabIndex = 0;
      heads.forEach(([key]) => line.append(cellOf(key, row.values[key])));
      const toggle = () => { state.open = state.open === row ? null : row; draw(); };
      line.onclick = toggle;
      line.onkeydown = (e) => { if (e.key === "Enter") toggle(); };
      body.append(line);
      if (state.open === row) body.append(detail(row, heads.length));
    });
    by("count").textContent = found.length === rows.length ? rows.length + " problems" : found.length + " of " + rows.length + " problems";
    by("where").textContent = "page " + (state.page + 1) + " of " + pages;
    by("back").disabled = state.page === 0;
    by("next").disabled = state.page >= pages - 1;
  };

  const fill = () => {
    const levels = [...new Set(cells[state.cell].cell.problems.map((p) => p.level))].filter((x) => x !== null).sort(compare);
    const first = make("option", "all levels");
    first.value = "";
    by("level").replaceChildren(first, ...levels.map((x) => { const o = make("option", "level " + x); o.value = String(x); return o; }));
    by("level").hidden = levels.length < 2;
  };

  by("cell").append(...data.cells.map((c, i) => { const o = make("option", c.label); o.value = i; return o; }));
  by("cell").hidden = data.cells.length < 2;
  by("cell").onchange = () => { state.cell = Number(by("cell").value); state.page = 0; state.open = null; state.key = "position"; fill(); draw(); };
  ["which", "level"].forEach((id) => { by(id).onchange = () => { state.page = 0; draw(); }; });
  by("find").oninput = () => { state.page = 0; draw(); };
  by("back").onclick = () => { state.page -= 1; draw(); };
  by("next").onclick = () => { state.page += 1; draw(); };
  by("theme").onclick = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
  if (cells.length) { fill(); draw(); }
  if (pictures) pictures.start();
})();
