"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows, HEIGHT = 30, $ = id => document.getElementById(id);
  const list = $("list"), spacer = $("spacer"), detail = $("detail");
  let shown = rows.map((_, i) => i), current = -1;
  const right = v => v.c !== null && v.c > 0.5;
  const differ = r => r.ref.c !== r.st.c;
  const make = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };

  // Only the rows in view exist; a page of ten thousand holds some forty elements.
  let frame = 0;
  function draw() {
    frame = 0;
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
    const view = document.createDocumentFragment();
    for (let at = first; at < last; at++) {
      const r = rows[shown[at]], e = make("div", "row" + (shown[at] === current ? " on" : ""));
      e.style.top = at * HEIGHT + "px";
      e.dataset.at = at;
      e.append(make("b", right(r.st) ? "right" : "wrong", (right(r.st) ? "\u2713" : "\u2717") + (differ(r) ? " \u2260" : "")));
      e.append(make("i", "", r.s ? r.id + " #" + r.s : r.id), make("span", "", r.st.a ?? "(" + r.o + ")"));
      view.append(e);
    }
    for (const old of list.querySelectorAll(".row")) old.remove();
    spacer.style.height = shown.length * HEIGHT + "px";
    list.append(view);
  }
  const schedule = () => { frame = frame || requestAnimationFrame(draw); };

  function show(at) {
    if (at < 0 || at >= shown.length) return;
    current = shown[at];
    const r = rows[current], out = document.createDocumentFragment();
    const part = (name, node) => { out.append(make("h3", "", name), node); };
    out.append(make("h3", "", r.id + (r.s ? " sample " + r.s : "") + " \u00b7 " + r.o + (r.k ? " \u00b7 " + r.k + " tokens" : "")));
    if (r.im.length) {
      const box = make("div");
      for (const name of r.im) {
        if (data.pictures[name]) { const img = make("img"); img.src = data.pictures[name]; img.alt = "image " + name; box.append(img); }
        else box.append(make("p", "", "picture " + name + " is not embedded"));
      }
      out.append(box);
    }
    part("Verdicts", verdicts(r));
    part("Gold", make("div", "text", r.g));
    part("Prompt", make("div", "text", r.p));
    const text = make("div", "text");
    if (r.sp) text.append(r.t.slice(0, r.sp[0]), make("mark", "", r.t.slice(r.sp[0], r.sp[1])), r.t.slice(r.sp[1]));
    else text.textContent = r.t;
    part("Response", text);
    if (r.th) { const d = make("details"); d.append(make("summary", "", "Thinking"), make("div", "text", r.th)); out.append(d); }
    if (r.j) part("Judge", make("div", "text", r.j));
    const groups = data.groups.map((g, i) => g + ": " + (r.gr[i] || []).join(", ")).join(" \u00b7 ");
    if (groups) part("Groups", make("div", "text", groups));
    detail.replaceChildren(out);
    detail.scrollTop = 0;
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    schedule();
  }

  function verdicts(r) {
    const table = make("table");
    for (const [name, v] of [["strict", r.st], ["reference", r.ref]]) {
      const line = make("tr"), credit = v.c === null ? "left out" : right(v) ? "right" : "wrong";
      line.append(make("td", "", name), make("td", credit === "left out" ? "" : credit, credit), make("td", "", v.a ?? "(none read)"), make("td", "", v.r + (v.n ? ": " + v.n : "")));
      table.append(line);
    }
    if (r.why) { const line = make("tr"), cell = make("td", "", r.why); cell.colSpan = 3; line.append(make("td", "", "why"), cell); table.append(line); }
    return table;
  }

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), verdict = $("verdict").value;
    const outcome = $("outcome").value, group = $("group").value ? JSON.parse($("group").value) : null;
    shown = [];
    rows.forEach((r, i) => {
      if (verdict === "right" && !right(r.st) || verdict === "wrong" && right(r.st)) return;
      if (verdict === "differ" && !differ(r) || verdict === "undecided" && !r.u) return;
      if (outcome && r.o !== outcome || group && !(r.gr[group[0]] || []).includes(group[1])) return;
      if (words.length) {
        r.all = r.all || [r.id, r.p, r.t, r.g, r.st.a, r.ref.a].join("\n").toLowerCase();
        if (!words.every(w => r.all.includes(w))) return;
      }
      shown.push(i);
    });
    $("shown").textContent = shown.length + " of " + rows.length;
    list.scrollTop = 0;
    schedule();
  }

  for (const name of [...new Set(rows.map(r => r.o))].sort()) $("outcome").append(new Option(name, name));
  data.groups.forEach((name, g) => {
    const labels = [...new Set(rows.flatMap(r => r.gr[g] || []))].sort();
    if (labels.length < 2 || labels.length > 200) return;
    const box = document.createElement("optgroup");
    box.label = name;
    for (const label of labels) box.append(new Option(label, JSON.stringify([g, label])));
    $("group").append(box);
  });
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 120); });
  for (const id of ["verdict", "outcome", "group"]) $(id).addEventListener("change", filter);
  list.addEventListener("scroll", schedule, { passive: true });
  addEventListener("resize", schedule);
  list.addEventListener("click", e => { const row = e.target.closest(".row"); if (row) show(Number(row.dataset.at)); });
  list.addEventListener("keydown", e => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[e.key];
    if (!step) return;
    e.preventDefault();
    const at = shown.indexOf(current);
    show(Math.min(shown.length - 1, Math.max(0, at + step)));
  });
  filter();
  if (rows.length) show(0);
})();
