// The table of objects: filtered by class, pair and who finds them, sorted by any column; a click shows the object.
"use strict";

auditPage.PAGE_OF_ROWS = 50;

// How much more often a model of the pair finds an object than the other; null where one of them is not known.
auditPage.difference = (row, student, control) => {
  const [own, other] = [row[6][student], row[6][control]];
  return own === null || other === null ? null : own - other;
};

// Rows of a class (null: any), of a pair, that are won, lost, equal or any.
auditPage.filtered = (rows, { classIndex, student, control, outcome }) =>
  rows.filter((row) => {
    if (classIndex !== null && row[2] !== classIndex) return false;
    if (outcome === "any") return true;
    const difference = auditPage.difference(row, student, control);
    if (difference === null) return false;
    return outcome === "won" ? difference > 0 : outcome === "lost" ? difference < 0 : difference === 0;
  });

// A sorted copy; texts by their language, what is not known last in either direction, equal ones in their order.
auditPage.sorted = (rows, key, falling) =>
  rows.slice().sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || x === undefined) return y === null || y === undefined ? 0 : 1;
    if (y === null || y === undefined) return -1;
    const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return falling ? -order : order;
  });

// Columns: a name, what is sorted by, the text of a cell.
auditPage.objectColumns = (content) => {
  const known = (value, text) => (value === null || value === undefined ? "-" : text(value));
  const column = (name, key, text = String, isText = false) => ({
    name,
    key,
    text: (row) => known(key(row), text),
    isText,
  });
  return [
    column("frame", (row) => content.frames[row[0]], String, true),
    column("class", (row) => content.classes[row[2]], String, true),
    column(
      "distance (m)",
      (row) => row[3],
      (value) => value.toFixed(1),
    ),
    column("points", (row) => row[4]),
    ...content.attributes.map((name, i) => column(name, (row) => row[5][i], String, true)),
    ...content.models.map((name, i) =>
      column(
        `${name} finds`,
        (row) => row[6][i],
        (value) => `${Math.round(100 * value)} %`,
      ),
    ),
  ];
};

auditPage.objects = (content, data) => {
  const { element } = auditPage;
  const columns = auditPage.objectColumns(content);
  const state = {
    classIndex: null,
    pair: 0,
    outcome: "any",
    column: null,
    falling: false,
    shown: auditPage.PAGE_OF_ROWS,
  };
  const count = element("p", { className: "note", id: "objects-count", attributes: { "aria-live": "polite" } });
  const head = element("tr"),
    body = element("tbody");
  const more = element("button", { textContent: "Show more", type: "button" });
  const models = (pair) => pair.map((name) => content.models.indexOf(name));

  const cells = (row) =>
    columns.map((column, i) => {
      const text = column.text(row);
      const scene = data.scenes.indexOf(content.frames[row[0]]);
      if (i > 0 || scene < 0)
        return element("td", { textContent: text, title: text, className: column.isText ? "text" : "" });
      const open = element("button", { type: "button", textContent: text, title: "Show this object in its frame" });
      open.addEventListener("click", () => auditPage.showObject(scene, row[1], content.pairs[state.pair] || []));
      return element("td", { className: "text" }, [open]);
    });

  const draw = () => {
    const [student, control] = models(content.pairs[state.pair] || []);
    let rows = auditPage.filtered(content.rows, { ...state, student, control });
    if (state.column !== null) rows = auditPage.sorted(rows, columns[state.column].key, state.falling);
    body.replaceChildren(...rows.slice(0, state.shown).map((row) => element("tr", {}, cells(row))));
    const shown = Math.min(state.shown, rows.length);
    const fit = `${shown} of ${rows.length} objects that fit, of ${content.rows.length}.`;
    count.textContent = `${fit} A frame's name that is a button opens it.`;
    more.hidden = shown === rows.length;
    head.replaceChildren(
      ...columns.map((column, i) => {
        const button = element("button", { type: "button", textContent: column.name });
        button.addEventListener("click", () => set({ column: i, falling: state.column === i && !state.falling }));
        const sort = state.column !== i ? "none" : state.falling ? "descending" : "ascending";
        return element(
          "th",
          { className: column.isText ? "text" : "", attributes: { scope: "col", "aria-sort": sort } },
          [button],
        );
      }),
    );
  };
  const set = (change) => {
    const focused = document.activeElement && head.contains(document.activeElement);
    Object.assign(state, { shown: auditPage.PAGE_OF_ROWS }, change);
    draw();
    if (focused) head.children[state.column].firstChild.focus(); // sorting makes the buttons anew
  };
  more.addEventListener("click", () => set({ shown: state.shown + 4 * auditPage.PAGE_OF_ROWS }));

  const outcomes = ["any", "won", "lost", "equal"];
  const controls = [
    auditPage.select("class", ["all", ...content.classes], (i) => set({ classIndex: i ? i - 1 : null })),
  ];
  if (content.pairs.length) {
    controls.push(
      auditPage.select(
        "pair",
        content.pairs.map((pair) => pair.join(" over ")),
        (i) => set({ pair: i }),
      ),
      auditPage.select("won or lost by the student", outcomes, (i) => set({ outcome: outcomes[i] })),
    );
  }
  draw();
  const table = element("table", { id: "objects-table" }, [element("thead", {}, [head]), body]);
  const wide = element("div", { className: "wide", tabIndex: 0 }, [table]);
  return element("div", {}, [element("div", { className: "controls" }, controls), count, wide, more]);
};
