"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows, HEIGHT = 34, $ = id => document.getElementById(id);
  const list = $("list"), spacer = $("spacer"), detail = $("detail");
  let shown = rows.map((_, i) => i), current = -1;
  const right = v => v.c !== null && v.c > 0.5;
  const differ = r => r.ref.c !== r.st.c;
  const name = r => r.s ? r.id + " #" + r.s : r.id;
  const make = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };

  // Only the rows in view exist; a page of ten thousand holds some forty elements.
  let frame = 0;
  function draw() {
    frame = 0;
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
    const view = document.createDocumentFragment();
    for (let at = first; at < last; at++) {
      const r = rows[shown[at]], on = shown[at] === current, e = make("div", "row" + (on ? " on" : ""));
      e.style.top = at * HEIGHT + "px";
      e.dataset.at = at;
      e.setAttribute("role", "option");
      e.setAttribute("aria-selected", on);
      e.append(make("b", right(r.st) ? "right" : "wrong", (right(r.st) ? "\u2713" : "\u2717") + (differ(r) ? " \u2260" : "")));
      e.append(make("i", "", name(r)), make("span", "", r.st.a ?? "(" + r.o + ")"));
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
    const part = (title, node) => out.append(make("h3", "", title), node);
    const head = make("p", "head", name(r)), steps = make("span");
    head.append(make("small", "", r.o + (r.k ? ", " + r.k + " tokens" : "")));
    for (const [label, by] of [["\u2190 previous", -1], ["next \u2192", 1]]) {
      const b = make("button", "", label);
      b.addEventListener("click", () => show(at + by));
      steps.append(b);
    }
    head.append(steps);
    out.append(head);
    if (r.im.length) {
      const box = make("div");
      for (const hash of r.im) {
        const picture = $("picture-" + hash);
        if (picture) { const img = make("img"); img.src = picture.textContent; img.alt = "picture " + hash; box.append(img); }
        else box.append(make("small", "", "picture " + hash + " is not embedded "));
      }
      out.append(box);
    }
    part("Verdicts", verdicts(r));
    part("Gold", make("div", "text", r.g));
    part("Prompt", make("div", "text", data.prompts[r.p]));
    const text = make("div", "text");
    if (r.sp) text.append(r.t.slice(0, r.sp[0]), make("mark", "", r.t.slice(r.sp[0], r.sp[1])), r.t.slice(r.sp[1]));
    else text.textContent = r.t || "(nothing)";
    part("Response", text);
    if (r.th) { const d = make("details"); d.append(make("summary", "", "Thinking"), make("div", "text", r.th)); out.append(d); }
    if (r.j) part("Judge", make("div", "text", r.j));
    if (r.rs) part("Reasoning: " + (r.rs[0] === null ? "not decided" : r.rs[0] ? "sound" : "unsound"), make("div", "text", r.rs[1]));
    const chips = make("div", "chips");
    data.groups.forEach((g, i) => (r.gr[i] || []).forEach(label => chips.append(make("span", "", g + ": " + label))));
    if (chips.childElementCount) part("Groups", chips);
    detail.replaceChildren(out);
    detail.scrollTop = 0;
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    schedule();
  }

  function verdicts(r) {
    const table = make("table");
    for (const [rule, v] of [["strict", r.st], ["reference", r.ref]]) {
      const line = make("tr"), credit = v.c === null ? "left out" : v.c > 0 && v.c < 1 ? v.c.toFixed(2) : right(v) ? "right" : "wrong";
      line.append(make("td", "", rule), make("td", v.c === null ? "" : right(v) ? "right" : "wrong", credit), make("td", "", v.a ?? "(none read)"), make("td", "", v.r + (v.n ? ": " + v.n : "")));
      table.append(line);
    }
    if (r.why) { const line = make("tr"), cell = make("td", "", r.why); cell.colSpan = 3; line.append(make("td", "", "why"), cell); table.append(line); }
    return table;
  }

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), verdict = $("verdict").value;
    const outcome = $("outcome").value, kind = $("kind").value, group = $("group").value ? JSON.parse($("group").value) : null;
    shown = [];
    rows.forEach((r, i) => {
      if (verdict === "right" && !right(r.st) || verdict === "wrong" && right(r.st)) return;
      if (verdict === "differ" && !differ(r) || verdict === "undecided" && !r.u) return;
      if (outcome && r.o !== outcome || kind && r.kind !== kind) return;
      if (group && !(r.gr[group[0]] || []).includes(group[1])) return;
      if (words.length) {
        r.all = r.all || [r.id, data.prompts[r.p], r.t, r.g, r.st.a, r.ref.a].join("\n").toLowerCase();
        if (!words.every(w => r.all.includes(w))) return;
      }
      shown.push(i);
    });
    $("shown").textContent = shown.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
    list.scrollTop = 0;
    if (shown.length && !shown.includes(current)) show(0);
    else schedule();
  }

  const choices = (id, values) => { for (const value of [...new Set(values)].sort()) $(id).append(new Option(value, value)); };
  choices("outcome", rows.map(r => r.o));
  choices("kind", rows.map(r => r.kind).filter(Boolean));
  $("kind").hidden = $("kind").options.length < 2;
  data.groups.forEach((title, g) => {
    const labels = [...new Set(rows.flatMap(r => r.gr[g] || []))].sort();
    if (labels.length < 2 || labels.length > 200) return;
    const box = document.createElement("optgroup");
    box.label = title;
    for (const label of labels) box.append(new Option(label, JSON.stringify([g, label])));
    $("group").append(box);
  });
  $("group").hidden = !$("group").querySelector("optgroup");
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 120); });
  for (const id of ["verdict", "outcome", "kind", "group"]) $(id).addEventListener("change", filter);
  for (const button of document.querySelectorAll("button[data-kind]")) {
    button.addEventListener("click", () => { $("kind").value = button.dataset.kind; filter(); $("browser").scrollIntoView(); });
  }
  list.addEventListener("scroll", schedule, { passive: true });
  addEventListener("resize", schedule);
  list.addEventListener("click", e => {
    const row = e.target.closest(".row");
    if (!row) return;
    show(Number(row.dataset.at));
    // On a narrow screen the answer stands below the list.
    if (matchMedia("(max-width: 820px)").matches) detail.scrollIntoView({ block: "start" });
  });
  list.addEventListener("keydown", e => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -rows.length, End: rows.length }[e.key];
    if (!step) return;
    e.preventDefault();
    show(Math.min(shown.length - 1, Math.max(0, shown.indexOf(current) + step)));
  });
  filter();
})();
