// A circuit whose edges are cut by a click. Python runs the model; this shows what it answers.

const number = (x) => x === null ? "not finite" : (x < 0 ? "\u2212" : "+") + Math.abs(x).toFixed(3);
const percent = (p) => p < 5e-5 ? "< 0.01 %" : (p * 100).toFixed(p < 0.1 ? 2 : 1) + " %";
const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

function make(tag, text, parent, css) {
  const found = document.createElement(tag);
  found.textContent = text;
  if (css) found.className = css;
  parent.append(found);
  return found;
}

// Notebooks do not follow the system's setting, so the ground behind the widget decides between light and dark.
function isDark(el) {
  for (let at = el.parentElement || el.getRootNode().host; at; at = at.parentElement || at.getRootNode().host) {
    const [r, g, b, alpha = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
    if (alpha > 0.5) return 0.299 * r + 0.587 * g + 0.114 * b < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function render({ model, el }) {
  el.classList.add("icl-live");
  const controls = make("div", "", el, "controls");
  const choice = make("select", "", make("label", "Prompt ", controls));
  model.get("prompts").forEach((name, i) => { make("option", name, choice).value = i; });
  const reset = make("button", "Reset", controls);
  reset.type = "button";
  reset.title = "Cut no edge";
  const status = make("span", "", controls, "status");
  status.setAttribute("role", "status");
  const result = make("p", "", el, "result");
  result.setAttribute("aria-live", "polite");
  const drawing = make("div", "", el, "drawing"), pointed = make("p", "", el, "key pointed");
  const below = make("div", "", el, "below");
  const answers = make("section", "", below), list = make("section", "", below);
  let svg = null, paths = [], wides = new Map(), boxes = new Map(), crosses = null;

  const edgeOf = (i) => model.get("drawn").edges.find((edge) => edge.number === i);
  const numberOf = (path) => Number(path.dataset.edge);

  function send(cut) {
    model.set("cut", [...cut].sort((a, b) => a - b));
    model.save_changes();
    update();
  }

  function toggle(i) {
    const cut = new Set(model.get("cut"));
    if (!cut.delete(i)) cut.add(i);
    send(cut);
    point(i);
  }

  function point(i) {
    const edge = i === null ? null : edgeOf(i);
    paths.forEach((path) => path.classList.toggle("on", numberOf(path) === i));
    boxes.forEach((box, at) => box.closest("li").classList.toggle("on", at === i));
    pointed.textContent = edge
      ? `${edge.name}: alone it adds ${number(edge.score)} to the ${model.get("metric")}. A click ${model.get("cut").includes(i) ? "restores" : "cuts"} it.`
      : "Click an edge, or tick it in the list, to cut it. Click it again to restore it.";
  }

  // The drawing is Python's own; under its edges lie wider lines to click, over them crosses on what is cut.
  function draw() {
    const { edges, n_edges } = model.get("drawn");
    drawing.innerHTML = model.get("drawn").svg;
    svg = drawing.querySelector("svg");
    svg.querySelectorAll(".node").forEach((node) => { node.removeAttribute("tabindex"); node.removeAttribute("role"); });
    paths = [...svg.querySelectorAll(".edge")];
    wides = new Map();
    paths.forEach((path) => {
      const wide = path.cloneNode(true), i = numberOf(path);
      path.dataset.drawn = path.getAttribute("visibility") || "visible";
      wide.setAttribute("class", "wide");
      wide.removeAttribute("stroke-dasharray");
      paths[0].before(wide);  // under all edges, so that each is met itself first
      wides.set(i, wide);
      for (const one of [path, wide]) {
        one.addEventListener("click", () => toggle(i));
        one.addEventListener("pointerenter", () => point(i));
        one.addEventListener("pointerleave", () => point(null));
      }
    });
    crosses = document.createElementNS("http://www.w3.org/2000/svg", "g");
    svg.append(crosses);
    list.replaceChildren();
    make("h3", `Edges: ${edges.length} of ${n_edges}`, list);
    make("p", `By what each adds alone to the ${model.get("metric")} of this prompt.`, list, "key");
    const items = make("ul", "", list);
    boxes = new Map();
    edges.forEach((edge) => {
      const item = make("li", "", items), label = make("label", "", item), box = make("input", "", label);
      box.type = "checkbox";
      make("span", edge.name, label, "name");
      make("span", number(edge.score), label, "number");
      box.addEventListener("input", () => toggle(edge.number));
      box.addEventListener("focus", () => point(edge.number));
      box.addEventListener("blur", () => point(null));
      item.addEventListener("pointerenter", () => point(edge.number));
      item.addEventListener("pointerleave", () => point(null));
      boxes.set(edge.number, box);
    });
    point(null);
  }

  // Which edges are cut, in the drawing and in the list. Nodes and layers show where an edge of theirs does.
  function mark(cut) {
    const used = new Set();
    crosses.replaceChildren();
    paths.forEach((path) => {
      const i = numberOf(path), edge = edgeOf(i), isCut = cut.includes(i);
      const shown = isCut ? "visible" : path.dataset.drawn;
      path.classList.toggle("cut", isCut);
      path.setAttribute("visibility", shown);
      wides.get(i).setAttribute("visibility", shown);
      if (shown === "visible") used.add(edge.from).add(edge.to);
      if (!isCut) return;
      const { x, y } = path.getPointAtLength(path.getTotalLength() / 2);
      for (const css of ["halo", "cross"]) {
        const cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
        cross.setAttribute("class", css);
        cross.setAttribute("d", `M${x - 6} ${y - 6}l12 12m0 -12l-12 12`);
        crosses.append(cross);
      }
    });
    const layers = new Set([...used].map((name) => (name.match(/^(?:L|MLP)(\d+)/) || [])[1]));
    const see = (one, on) => one.setAttribute("visibility", on ? "visible" : "hidden");
    svg.querySelectorAll(".node").forEach((node) => see(node, used.has(node.dataset.node) || /^(label|last)/.test(node.dataset.node)));
    svg.querySelectorAll(".tick").forEach((tick) => see(tick, layers.has(tick.dataset.layer)));
    boxes.forEach((box, i) => { box.checked = cut.includes(i); box.closest("li").classList.toggle("cut", box.checked); });
  }

  function bar(row, p, css) {
    const cell = make("td", "", row, "number");
    make("span", "", make("span", "", cell, "track"), "bar " + css).style.width = (p * 100).toFixed(2) + "%";
    make("span", percent(p), cell);
  }

  function tell(answer, cut) {
    const [before, after] = answer.metric, many = cut.length === 1 ? "1 edge" : `${cut.length} edges`;
    const change = before === null || after === null ? "" : ` (${number(after - before)})`;
    const name = model.get("metric")[0].toUpperCase() + model.get("metric").slice(1);
    result.replaceChildren();
    make("span", `${name}: `, result);
    make("b", cut.length ? `${number(before)} \u2192 ${number(after)}` : number(before), result);
    make("span", cut.length ? `${change} without ${many}` : " with every edge", result);
    answers.replaceChildren();
    make("h3", "Likeliest answers", answers);
    make("p", `The right answer is ${model.get("drawn").answer}.`, answers, "key");
    const table = make("table", "", answers), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const title of ["token", "whole model", cut.length ? `without ${many}` : "without edges"]) make("th", title, head);
    answer.tokens.forEach((token) => {
      const row = body.insertRow();
      make("code", token.text, row.insertCell());
      if (token.right) make("span", " right", row.cells[0], "right");
      bar(row, token.probs[0], "before");
      bar(row, token.probs[1], "after");
    });
  }

  function update() {
    const answer = model.get("answer"), cut = model.get("cut"), prompt = model.get("prompt");
    const isLate = answer.prompt !== prompt || !same(answer.cut, cut);
    choice.value = prompt;
    reset.disabled = !cut.length;
    status.className = answer.error && !isLate ? "status error" : "status";
    status.textContent = isLate ? "Computing\u2026" : answer.error ? `Error: ${answer.error}` : "";
    for (const part of [result, answers]) part.classList.toggle("late", isLate || Boolean(answer.error));
    if (!isLate && !answer.error) tell(answer, cut);
    mark(cut);
  }

  function redraw() { draw(); update(); }

  choice.addEventListener("input", () => { model.set("prompt", Number(choice.value)); model.save_changes(); update(); });
  reset.addEventListener("click", () => send([]));
  const theme = () => el.classList.toggle("dark", isDark(el));
  const sized = new ResizeObserver(theme), changed = new MutationObserver(theme);
  const system = matchMedia("(prefers-color-scheme: dark)");
  sized.observe(el);
  for (const node of [document.documentElement, document.body]) changed.observe(node, { attributes: true });
  system.addEventListener("change", theme);
  model.on("change:drawn", redraw);
  model.on("change:answer", update);
  model.on("change:cut", update);
  model.on("change:prompt", update);
  theme();
  redraw();
  return () => {
    sized.disconnect();
    changed.disconnect();
    system.removeEventListener("change", theme);
    model.off("change:drawn", redraw);
    for (const name of ["answer", "cut", "prompt"]) model.off(`change:${name}`, update);
  };
}

export default { render };
