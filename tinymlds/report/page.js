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

  // The shared layout with what a chart adds to it; nothing of the page's data is shared with Plotly, which changes what it gets.
  function layoutOf(chart) {
    const layout = structuredClone(page.layout);
    for (const [key, value] of Object.entries(structuredClone(chart.layout))) {
      layout[key] = ["margin", "title"].includes(key) ? {...layout[key], ...value} : value;
    }
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, {...page.axis, ...axis});
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

  // Put the charts of a figure into its place: those that are there already are changed, others made or taken away.
  function draw(name, charts) {
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
        div.setAttribute("role", "img");
        place.append(div);
      }
      div.className = chart.share <= 0.25 ? "chart quarter" : chart.share < 1 ? "chart middle" : "chart";
      const layout = layoutOf(chart);
      div.style.minHeight = `${layout.height}px`;
      div.setAttribute("aria-label", chart.title);
      Plotly.react(div, dataOf(chart), layout, {...config, displayModeBar: !narrow && chart.share > 0.25 && "hover"});
    });
  }

  // Run `draw` once the place comes near the window: a page has many charts, and few are seen at once.
  function whenNear(place, action) {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        action();
      }
    }, {rootMargin: "600px"});
    observer.observe(place);
  }

  function options(select, values) {
    select.replaceChildren(...values.map(([value, text]) => new Option(text, value)));
  }

  for (const [name, choices] of Object.entries(page.figures)) {
    const select = document.querySelector(`select[data-figure="${name}"]`);
    const show = () => draw(name, choices[select ? select.value : Object.keys(choices)[0]] || []);
    whenNear(element(`figure-${name}`), show);
    if (select) select.addEventListener("change", show);
  }

  if (page.looks) {
    const [task, index, sequence] = ["task", "index", "sequence"].map((name) => element(`look-${name}`));
    const networks = page.looks.networks;
    const chosen = () => networks.find((look) => look.task === task.value && String(look.index) === index.value);
    const near = new Set();

    const drawing = {
      weights: (look) => look.weights,
      hidden: (look) => look.hidden[Number(sequence.value)],
      answers: (look) => look.answers[Number(sequence.value)],
      machine: (look) => page.looks.machines[look.task],
    };

    function show(names) {
      const look = chosen();
      for (const name of names) {
        [element(`title-${name}`).textContent, element(`text-${name}`).textContent] = look.texts[name];
        element(`command-${name}`).textContent = look.commands[name];
        element(`command-${name}`).parentElement.hidden = !look.commands[name];
        if (near.has(name)) draw(name, drawing[name](look));
      }
      element("look-facts").replaceChildren(...look.facts.map(([term, value]) => {
        const pair = document.createElement("div");
        for (const [tag, text] of [["dt", term], ["dd", value]]) {
          pair.append(Object.assign(document.createElement(tag), {textContent: text}));
        }
        return pair;
      }));
    }

    function indices() {
      options(index, networks.filter((look) => look.task === task.value).map((look) => [look.index, look.index]));
    }

    options(task, [...new Set(networks.map((look) => look.task))].map((name) => [name, name]));
    options(sequence, networks[0].hidden.map((_, k) => [k, k + 1]));
    indices();
    show(Object.keys(drawing));
    task.addEventListener("change", () => { indices(); show(Object.keys(drawing)); });
    index.addEventListener("change", () => show(["weights", "hidden", "answers"]));
    sequence.addEventListener("change", () => show(["hidden", "answers"]));
    for (const name of Object.keys(drawing)) {
      whenNear(element(`figure-${name}`), () => { near.add(name); show([name]); });
    }
  }
})();
