"use strict";
(() => {
  const held = (id) => JSON.parse(document.getElementById(id).textContent);
  const pictures = held("pictures"), charts = held("charts"), points = held("points");
  const source = (number) => "data:image/jpeg;base64," + pictures[number];

  for (const image of document.querySelectorAll("img[data-picture]")) image.src = source(image.dataset.picture);

  // Charts are drawn when they come into view, in the colours of the theme.
  const narrow = () => window.innerWidth <= 700;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const coloured = (trace, number) => {
    const tint = trace.faint ? color("--other") : color("--c" + (number % 10));
    const { faint, ...drawn } = trace;
    return { ...drawn, marker: { ...drawn.marker, color: tint }, line: { color: tint, width: 2 } };
  };

  const laidOut = (chart, traces, element) => {
    const { rows, zooms, ...layout } = structuredClone(chart.layout);
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), fixedrange: !zooms || narrow() });
    }
    return {
      ...layout,
      height: rows ? (narrow() ? 260 : 130) + 34 * rows : element.clientHeight,
      margin: { l: 8, r: 8, t: 8, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--ink"), family: "system-ui, sans-serif", size: 12 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: narrow() ? 10 : 12 } },
      showlegend: traces.length > 1,
      hoverlabel: { bgcolor: color("--sheet"), bordercolor: color("--line"), font: { color: color("--ink") } },
      dragmode: zooms && !narrow() ? "zoom" : false,
    };
  };

  const draw = (element) => {
    const chart = charts[element.dataset.chart];
    if (!chart) return;
    let tint = 0;
    const traces = chart.data.map((trace) => coloured(trace, trace.faint ? 0 : tint++));
    Plotly.react(element, traces, laidOut(chart, traces, element), { displayModeBar: false, responsive: true });
    if (element.dataset.chart === "map" && !element.dataset.drawn) {
      element.on("plotly_hover", (event) => tell(event.points[0].customdata, event.event));
      element.on("plotly_click", (event) => tell(event.points[0].customdata, event.event));
      element.on("plotly_unhover", () => { tip.hidden = true; });
    }
    element.dataset.drawn = "yes";
  };

  const tip = document.getElementById("tip");
  const tell = (number, at) => {
    const [said, id, sid, picture] = points[number];
    tip.replaceChildren();
    if (picture !== null) tip.append(Object.assign(new Image(96, 96), { src: source(picture), alt: "" }));
    const text = document.createElement("div");
    for (const [tag, words] of [["b", said ?? "(no text)"], ["code", id], ["code", sid]]) {
      const line = document.createElement("div");
      line.append(Object.assign(document.createElement(tag), { textContent: words, dir: "auto" }));
      text.append(line);
    }
    tip.append(text);
    tip.hidden = false;
    const { clientX: x, clientY: y } = at.touches?.[0] ?? at;
    tip.style.left = Math.max(4, Math.min(x + 14, window.innerWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = (y + tip.offsetHeight + 24 > window.innerHeight ? Math.max(4, y - tip.offsetHeight - 14) : y + 14) + "px";
  };
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }, { rootMargin: "300px" });
  const places = document.querySelectorAll(".chart");
  places.forEach((element) => seen.observe(element));

  const redraw = () => places.forEach((element) => { if (element.dataset.drawn) draw(element); });
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    redraw();
  });
  system.addEventListener("change", redraw);
})();
