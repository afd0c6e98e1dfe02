// Draws the page from its data: sections, sentences, tables and plots. Names in the data are never markup: elements are
// made one by one, and texts set as texts. objects.js, scene.js and view3d.js draw the table of objects and the frames.
"use strict";

const auditPage = {};

auditPage.read = (id) => JSON.parse(document.getElementById(id).textContent);

// An element with its properties (and attributes, under "attributes") and children, which are elements or texts.
auditPage.element = (tag, properties = {}, children = []) => {
  const made = document.createElement(tag);
  const { attributes = {}, ...rest } = properties;
  Object.assign(made, rest);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

auditPage.table = (content) => {
  const { element } = auditPage;
  const cell = (tag, text, column, more = {}) =>
    element(tag, { textContent: text, title: text, className: column < content.text_columns ? "text" : "", ...more });
  const head = content.header.map((text, i) => cell("th", text, i, { attributes: { scope: "col" } }));
  const rows = content.rows.map((row) =>
    element(
      "tr",
      {},
      row.map((text, i) => cell("td", text, i)),
    ),
  );
  const table = element("table", {}, [element("thead", {}, [element("tr", {}, head)]), element("tbody", {}, rows)]);
  const wide = element("div", { className: "wide", tabIndex: 0 }, [table]);
  const note = content.note ? [element("p", { className: "note", textContent: content.note })] : [];
  if (!content.folded) return element("div", {}, [element("h3", { textContent: content.heading }), wide, ...note]);
  const summary = element("summary", { textContent: `${content.heading} (${content.rows.length} rows)` });
  return element("details", {}, [summary, wide, ...note]);
};

auditPage.list = (content) => {
  const { element } = auditPage;
  const items = (texts) =>
    element(
      "ul",
      {},
      texts.map((text) => element("li", { textContent: text })),
    );
  const found = [element("h3", { textContent: content.heading }), items(content.items.slice(0, content.shown))];
  const rest = content.items.slice(content.shown);
  if (rest.length) {
    found.push(element("details", {}, [element("summary", { textContent: `${rest.length} more` }), items(rest)]));
  }
  return element("div", {}, found);
};

// A select with its name before it; change is called with the chosen index.
auditPage.select = (name, options, change, chosen = 0) => {
  const { element } = auditPage;
  const made = options.map((option, i) => element("option", { textContent: option, value: i, selected: i === chosen }));
  const select = element("select", { attributes: { "data-name": name } }, made);
  select.addEventListener("change", () => change(select.selectedIndex));
  return element("label", {}, [`${name} `, select]);
};

auditPage.plotSettings = {
  displaylogo: false,
  responsive: true,
  modeBarButtonsToRemove: ["lasso2d", "select2d"],
  showSendToCloud: false,
  plotlyServerURL: "", // by itself, plotly offers to send what it draws to its maker
};
auditPage.waiting = []; // functions that draw, one a plot, called when plotly is there

// A plot with a selector for each of its choices.
auditPage.plot = (content) => {
  const { element } = auditPage;
  const chosen = content.selectors.map(() => 0);
  const drawn = element("div", {
    className: "plot",
    id: content.id,
    attributes: { role: "img", "aria-label": content.heading },
  });
  const below = element("div");
  const draw = () => {
    const options = content.selectors.map((selector, i) => selector.options[chosen[i]]);
    const view = content.views.find((v) => v.options.every((option, i) => option === options[i]));
    below.replaceChildren();
    if (!view) {
      Plotly.purge(drawn);
      drawn.replaceChildren(element("p", { className: "missing", textContent: "There is nothing for this choice." }));
      return Promise.resolve();
    }
    if (view.table) below.append(auditPage.table(view.table));
    if (!drawn.querySelector(".plot-container")) drawn.replaceChildren();
    const figure = structuredClone(view.figure); // plotly writes into what it is given
    return Plotly.react(drawn, figure.data, figure.layout, auditPage.plotSettings);
  };
  auditPage.waiting.push(draw);
  const selects = content.selectors
    .map((selector, i) => [selector, i])
    .filter(([selector]) => selector.options.length > 1)
    .map(([selector, i]) =>
      auditPage.select(selector.name, selector.options, (index) => {
        chosen[i] = index;
        draw();
      }),
    );
  const parts = [element("h3", { textContent: content.heading })];
  if (selects.length) parts.push(element("div", { className: "controls" }, selects));
  parts.push(drawn, element("p", { className: "note", textContent: content.note }), below);
  return element("figure", {}, parts);
};

auditPage.block = (content, data) => {
  if (content.kind === "text") return auditPage.element("p", { textContent: content.text });
  if (content.kind === "list") return auditPage.list(content);
  if (content.kind === "table") return auditPage.table(content);
  if (content.kind === "plot") return auditPage.plot(content);
  if (content.kind === "objects") return auditPage.objects(content, data);
  if (content.kind === "scenes") return auditPage.scenes(data);
  throw new Error(`no block is of kind ${content.kind}`);
};

auditPage.section = (section, data) => {
  const { element } = auditPage;
  const blocks = section.blocks.map((block) => auditPage.block(block, data));
  if (!blocks.length) blocks.push(element("p", { className: "missing", textContent: section.missing }));
  return element("section", { id: section.id }, [element("h2", { textContent: section.heading }), ...blocks]);
};

// Texts and tables; they can be read before plotly has been loaded.
auditPage.write = () => {
  const { element } = auditPage;
  const data = auditPage.read("data");
  auditPage.data = data;
  document.getElementById("title").textContent = data.title;
  document.title = data.title;
  for (const section of data.sections) {
    document.getElementById("main").append(auditPage.section(section, data));
    const link = element("a", {
      textContent: section.id[0].toUpperCase() + section.id.slice(1),
      href: `#${section.id}`,
    });
    document.getElementById("nav").append(link);
  }
  const facts = data.facts.flatMap(([name, value]) => [
    element("dt", { textContent: name }),
    element("dd", { textContent: value }),
  ]);
  document.getElementById("facts").append(element("dl", {}, facts));
  if (auditPage.drawFrame) auditPage.drawFrame();
};

// Draws one plot after another, so that the page can be scrolled meanwhile; resolves when all are there.
auditPage.start = () => {
  auditPage.ready = (async () => {
    for (const draw of auditPage.waiting) {
      await draw();
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.ready = "yes";
  })();
};
