"use strict";
(function () {
  const all = JSON.parse(document.getElementById("data").textContent);
  const dashes = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [12, 4], [1, 2], [6, 2, 1, 2]];
  const figures = Array.from(document.querySelectorAll("figure[data-number]"));
  const plots = new Map();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function day(seconds) {
    return new Date(seconds * 1000).toISOString().slice(0, 10);
  }

  // Runs of a few days differ by their hour: "11-29 14:05".
  function moment(seconds) {
    return new Date(seconds * 1000).toISOString().slice(5, 16).replace("T", " ");
  }

  // One run has no range of its own: half a day on each side, where uPlot would take a year.
  function range(times) {
    const pad = times.length === 1 ? 43200 : 0;
    return [times[0] - pad, times[times.length - 1] + pad];
  }

  function labels(times) {
    const near = times[times.length - 1] - times[0] < 3 * 86400;
    return (plot, splits) => splits.map(near ? moment : day).map((text, n, all) => (text === all[n - 1] ? "" : text));
  }

  function ratio(value) {
    const number = Math.exp(value);
    return (number >= 100 ? number.toPrecision(3) : number.toFixed(2)) + "x";
  }

  // What stands at one run, for the line below a figure: seen and read out.
  function sentence(one, place) {
    const parts = [day(one.times[place])];
    for (const line of one.lines) {
      const [mean, low, high] = line.values.map((column) => column[place]);
      if (mean !== null) {
        parts.push(line.name + " " + ratio(mean) + " [" + ratio(low).slice(0, -1) + ", " + ratio(high).slice(0, -1) + "]");
      }
    }
    const marks = one.marks.filter((mark) => mark.at === one.times[place]);
    return parts.join("; ") + (marks.length ? ". " + marks.map((mark) => mark.text).join(". ") : "");
  }

  function options(one, width, show) {
    const series = [{}];
    const bands = [];
    one.lines.forEach((line, number) => {
      const tone = colour("--line-" + number);
      const first = series.length;
      const few = line.values[0].filter((value) => value !== null).length < 30;
      series.push({ label: line.name, stroke: tone, width: 1.8, dash: dashes[number], spanGaps: true, points: { show: few, size: 5 } });
      series.push({ stroke: "transparent", width: 0, spanGaps: true, points: { show: false } });
      series.push({ stroke: "transparent", width: 0, spanGaps: true, points: { show: false } });
      bands.push({ series: [first + 2, first + 1], fill: tone + "29" });
    });
    function drawMarks(plot) {
      const context = plot.ctx;
      context.save();
      for (const mark of one.marks) {
        const x = Math.round(plot.valToPos(mark.at, "x", true));
        context.strokeStyle = colour(mark.kind === "worse" ? "--slower" : mark.kind === "better" ? "--faster" : "--soft");
        context.lineWidth = (mark.kind === "machine" ? 1 : 2) * devicePixelRatio;
        context.setLineDash(mark.kind === "machine" ? [3 * devicePixelRatio, 5 * devicePixelRatio] : []);
        context.beginPath();
        context.moveTo(x, plot.bbox.top);
        context.lineTo(x, plot.bbox.top + plot.bbox.height);
        context.stroke();
      }
      context.restore();
    }
    // The interval of an only run: a band needs two.
    function drawBars(plot) {
      const context = plot.ctx;
      context.save();
      context.lineWidth = 1.8 * devicePixelRatio;
      one.lines.forEach((line, number) => {
        const runs = one.times.map((at, n) => n).filter((n) => line.values[0][n] !== null);
        if (runs.length === 1) {
          const x = plot.valToPos(one.times[runs[0]], "x", true);
          context.strokeStyle = colour("--line-" + number);
          context.beginPath();
          context.moveTo(x, plot.valToPos(line.values[1][runs[0]], "y", true));
          context.lineTo(x, plot.valToPos(line.values[2][runs[0]], "y", true));
          context.stroke();
        }
      });
      context.restore();
    }
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--faint"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width: width,
      height: 220,
      legend: { show: false },
      series: series,
      bands: bands,
      scales: { x: { time: true, range: () => range(one.times) }, y: { range: one.range } },
      axes: [
        Object.assign({}, axis, { values: labels(one.times), space: 90 }),
        Object.assign({}, axis, {
          size: 56,
          splits: () => one.ticks.map((tick) => tick[0]),
          values: (plot, splits) => splits.map((split) => (one.ticks.find((tick) => tick[0] === split) || [0, ""])[1]),
        }),
      ],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      hooks: { draw: [drawMarks, drawBars], setCursor: [(plot) => show(plot.cursor.idx)] },
    };
  }

  function draw(figure) {
    const one = all[Number(figure.dataset.number)];
    const title = figure.querySelector("figcaption");
    let place = figure.querySelector(".plot");
    let line = figure.querySelector(".readout");
    if (!place) {
      place = document.createElement("div");
      place.className = "plot";
      place.tabIndex = 0;
      place.setAttribute("role", "group");
      place.setAttribute("aria-roledescription", "figure with a cursor");
      place.setAttribute("aria-label", title.textContent.trim() + ". Arrow keys move from run to run.");
      line = document.createElement("p");
      line.className = "readout";
      line.setAttribute("aria-live", "polite");
      title.after(place, line);
      place.addEventListener("keydown", (event) => step(event, figure));
      place.addEventListener("blur", () => { line.textContent = ""; });
    }
    if (plots.has(figure)) {
      plots.get(figure).destroy();
    }
    figure.classList.add("drawn");
    const columns = [one.times];
    one.lines.forEach((each) => columns.push(each.values[0], each.values[1], each.values[2]));
    function show(at) {
      line.textContent = at === null || at === undefined ? "" : sentence(one, at);
    }
    plots.set(figure, new uPlot(options(one, place.clientWidth, show), columns, place));
  }

  function step(event, figure) {
    const plot = plots.get(figure);
    const last = plot.data[0].length - 1;
    const now = plot.cursor.idx;
    const none = now === null || now === undefined;
    const places = {
      ArrowLeft: none ? last : Math.max(0, now - 1),
      ArrowRight: none ? 0 : Math.min(last, now + 1),
      Home: 0,
      End: last,
    };
    if (event.key === "Escape") {
      plot.setCursor({ left: -10, top: -10 });
    } else if (event.key in places) {
      const at = places[event.key];
      plot.setCursor({ left: plot.valToPos(plot.data[0][at], "x"), top: 20 });
      event.preventDefault();
    }
  }

  // A figure is drawn when it comes near the window: a store may have a hundred.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !plots.has(entry.target)) {
        draw(entry.target);
      }
    }
  }, { rootMargin: "400px" });
  figures.forEach((figure) => near.observe(figure));

  const sizes = new ResizeObserver(() => {
    for (const [figure, plot] of plots) {
      const width = figure.querySelector(".plot").clientWidth;
      if (width > 0 && width !== plot.width) {
        plot.setSize({ width: width, height: 220 });
      }
    }
  });
  sizes.observe(document.querySelector(".figures"));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const figure of plots.keys()) {
      draw(figure);
    }
  });

  const form = document.querySelector(".filters");
  form.hidden = !figures.length;
  function filter() {
    let shown = 0;
    for (const figure of figures) {
      const keep =
        (!form.elements.target.value || figure.dataset.target === form.elements.target.value) &&
        (!form.elements.workload.value || figure.dataset.workloads.split(" ").includes(form.elements.workload.value)) &&
        (!form.elements.machine.value || figure.dataset.machine === form.elements.machine.value) &&
        (!form.elements.changed.checked || "changed" in figure.dataset);
      figure.hidden = !keep;
      shown += keep;
    }
    form.elements.count.value = shown + " of " + figures.length + " figures";
  }
  form.addEventListener("input", filter);
  filter();
})();
