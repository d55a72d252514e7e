"use strict";
// Draws the figures of the page with Plotly from the JSON in it, and redraws them when another choice is made.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  // The buttons are listed, and there is no server: one of Plotly's own would send a chart to its makers.
  const config = {
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    plotlyServerURL: "",
    responsive: true,
  };
  // On a narrow window a finger on a chart scrolls the page, and buttons would cover the legend.
  const narrow = window.matchMedia("(max-width: 560px)").matches;
  const element = (id) => document.getElementById(id);

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const root = document.documentElement.classList;

  // The shared layout with what a chart adds to it, in the colours of the page; nothing of the page's data is shared with
  // Plotly, which changes what it gets.
  function layoutOf(chart) {
    const layout = structuredClone(page.layout);
    for (const [key, value] of Object.entries(structuredClone(chart.layout))) {
      layout[key] = ["margin", "title"].includes(key) ? {...layout[key], ...value} : value;
    }
    const [ink, paper, rule] = ["ink", "paper", "rule"].map(colour);
    layout.font.color = ink;
    layout.paper_bgcolor = layout.plot_bgcolor = paper;
    layout.hoverlabel = {bgcolor: paper, bordercolor: rule, font: {color: ink}};
    layout.modebar = {bgcolor: paper, color: colour("soft"), activecolor: ink};
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, {...page.axis, gridcolor: rule, linecolor: colour("soft"), ...axis});
    }
    for (const note of layout.annotations || []) {
      if (!note.bgcolor) continue;
      note.bgcolor = paper;
      if (note.font.color === "#1F2328") note.font.color = ink;
    }
    if (narrow) {
      layout.dragmode = false;
      if (layout.yaxis.scaleanchor) layout.height = Math.min(layout.height, window.innerWidth + 70);
    }
    return layout;
  }

  function dataOf(chart) {
    const data = structuredClone(chart.data);
    for (const trace of data) {
      if (narrow && trace.marker && trace.marker.size > 24) trace.marker.size = 24;
      if (trace.meta && trace.meta.columns) {
        trace.text = trace.meta.rows.map((row) => trace.meta.columns.map((column) => `${row}, ${column}`));
      }
    }
    return data;
  }

  const classOf = (share) => (share <= 0.25 ? "chart quarter" : share === 0.5 ? "chart half" : share < 1 ? "chart middle" : "chart");

  // Make a place for each chart of a figure, as high as the chart will be, so that nothing moves when it is drawn.
  function reserve(name, charts) {
    const place = element(`charts-${name}`);
    while (place.children.length > charts.length) {
      Plotly.purge(place.lastChild);
      place.lastChild.remove();
    }
    charts.forEach((chart, k) => {
      let div = place.children[k];
      if (!div) {
        div = document.createElement("div");
        div.id = `chart-${name}-${k}`;
        div.setAttribute("role", "group");
        place.append(div);
      }
      div.className = classOf(chart.share);
      div.style.minHeight = `${layoutOf(chart).height}px`;
      div.setAttribute("aria-label", chart.title);
    });
    return [...place.children];
  }

  function draw(name, charts) {
    reserve(name, charts).forEach((div, k) => {
      const [chart, layout] = [charts[k], layoutOf(charts[k])];
      if (root.contains("printing")) layout.width = div.clientWidth;
      const isNew = !div.data;
      Plotly.react(div, dataOf(chart), layout, {...config, displayModeBar: !narrow && chart.share > 0.25 && "hover"});
      if (isNew) div.on("plotly_click", (event) => lead(event.points[0].text));
    });
  }

  // What draws each figure: `false` reserves its place, `true` draws it. Figures are drawn once they come near the window (a
  // page has many, and few are seen at once), and all before the page is printed.
  const figures = {};
  const near = new Set();
  const show = (name) => figures[name](near.has(name));

  function whenNear(name) {
    show(name);
    const observer = new IntersectionObserver((entries) => {
      if (near.has(name)) observer.disconnect();
      else if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        near.add(name);
        show(name);
      }
    }, {rootMargin: "600px"});
    observer.observe(element(`figure-${name}`));
  }

  window.addEventListener("beforeprint", () => {
    root.add("printing");
    Object.keys(figures).forEach((name) => { near.add(name); show(name); });
  });
  window.addEventListener("afterprint", () => {
    root.remove("printing");
    near.forEach(show);
    document.querySelectorAll(".chart").forEach((div) => Plotly.Plots.resize(div));
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => near.forEach(show));

  function options(select, values) {
    select.replaceChildren(...values.map(([value, text]) => new Option(text, value)));
  }

  for (const [name, choices] of Object.entries(page.figures)) {
    const select = document.querySelector(`select[data-figure="${name}"]`);
    const charts = () => choices[select ? select.value : Object.keys(choices)[0]] || [];
    figures[name] = (now) => (now ? draw : reserve)(name, charts());
    if (select) select.addEventListener("change", () => show(name));
  }

  const [task, index, sequence] = ["task", "index", "sequence"].map((name) => element(`look-${name}`));
  const networks = page.looks ? page.looks.networks : [];
  const chosen = () => networks.find((look) => look.task === task.value && String(look.index) === index.value);

  const drawing = {
    weights: (look) => look.weights,
    hidden: (look) => look.hidden[Number(sequence.value)],
    answers: (look) => look.answers[Number(sequence.value)],
    machine: (look) => page.looks.machines[look.task],
  };

  function indices() {
    options(index, networks.filter((look) => look.task === task.value).map((look) => [look.index, look.name]));
  }

  function showLook(names) {
    const look = chosen();
    element("look-missing").hidden = true;
    for (const name of names) {
      [element(`title-${name}`).textContent, element(`text-${name}`).textContent] = look.texts[name];
      element(`command-${name}`).textContent = look.commands[name];
      element(`command-${name}`).parentElement.hidden = !look.commands[name];
      const [scale, bound] = [element(`scale-${name}`), look.bounds[name]];
      scale.hidden = !bound;
      [scale.firstChild.textContent, scale.lastChild.textContent] = [`-${bound}`, bound];
      show(name);
    }
    element("look-facts").replaceChildren(...look.facts.map(([term, value]) => {
      const pair = document.createElement("div");
      for (const [tag, text] of [["dt", term], ["dd", value]]) {
        pair.append(Object.assign(document.createElement(tag), {textContent: text}));
      }
      return pair;
    }));
  }

  // Go to the network of a point, whose text begins with its task and index.
  function lead(text) {
    const [, name, number] = /^(\S+) (\d+),/.exec(text || "") || [];
    if (!networks.length || !number) return;
    if (networks.some((look) => look.task === name && String(look.index) === number)) {
      task.value = name;
      indices();
      index.value = number;
      showLook(Object.keys(drawing));
    } else {
      element("look-missing").hidden = false;
      element("look-missing").textContent = `${name} ${number} is not on this page; a page with it: ${page.command} --network ${name}:${number}`;
    }
    element("network").scrollIntoView();
  }

  if (networks.length) {
    for (const name of Object.keys(drawing)) figures[name] = (now) => (now ? draw : reserve)(name, drawing[name](chosen()));
    const tasks = [...new Set(networks.map((look) => look.task))];
    options(task, tasks.map((name) => [name, name]));
    task.value = tasks.find((name) => page.looks.machines[name].length) || tasks[0];
    options(sequence, networks[0].hidden.map((_, k) => [k, k + 1]));
    indices();
    showLook(Object.keys(drawing));
    task.addEventListener("change", () => { indices(); showLook(Object.keys(drawing)); });
    index.addEventListener("change", () => showLook(["weights", "hidden", "answers"]));
    sequence.addEventListener("change", () => showLook(["hidden", "answers"]));
  }
  Object.keys(figures).forEach(whenNear);
})();
