// Frames: points, labelled boxes, and boxes of the chosen models, with the controls of the view (view3d.js draws it).
"use strict";

auditPage.bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

// Columns from numbers of 16 bits, each a Float32Array: [x, y, z] of points, seven of boxes.
auditPage.decode = (rows) => {
  const view = new DataView(auditPage.bytes(rows.data).buffer);
  const width = rows.step.length;
  const columns = rows.step.map(() => new Float32Array(rows.n));
  for (let i = 0; i < rows.n; i += 1) {
    for (let c = 0; c < width; c += 1) {
      columns[c][i] = rows.centre[c] + rows.step[c] * view.getInt16(2 * (width * i + c), true);
    }
  }
  return columns;
};

// One model's detections, an entry each: {model, boxes, scores, names, kinds}.
auditPage.unpacked = (found) => {
  const columns = auditPage.decode(found.boxes);
  const each = Array.from({ length: found.boxes.n }, (_, i) => i);
  const [scores, name, kind] = [found.scores, found.name, found.kind].map(
    (text) => new DataView(auditPage.bytes(text).buffer),
  );
  return {
    model: found.model,
    boxes: each.map((i) => columns.map((column) => column[i])),
    scores: each.map((i) => scores.getFloat32(4 * i, true)),
    names: each.map((i) => found.names[name.getUint16(2 * i, true)]),
    kinds: each.map((i) => found.kinds[kind.getUint16(2 * i, true)]),
  };
};

auditPage.readScene = (number) => {
  const scene = auditPage.read(`scene-${number}`);
  return { ...scene, detections: scene.detections.map(auditPage.unpacked) };
};

// 0..1 -> 0xAABBGGRR, between the colours (#rrggbb) of a scale.
auditPage.colourOf = (amount, scale) => {
  const at = Math.min(Math.max(amount, 0), 1) * (scale.length - 1);
  const low = Math.min(Math.floor(at), scale.length - 2);
  const part = (text, i) => parseInt(text.slice(1 + 2 * i, 3 + 2 * i), 16);
  const [r, g, b] = [0, 1, 2].map((i) =>
    Math.round(part(scale[low], i) + (at - low) * (part(scale[low + 1], i) - part(scale[low], i))),
  );
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
};

// Indices of detections that count: from the slider's score on, or, where that is null, from the model's thresholds.
auditPage.counted = (detections, thresholds, score) =>
  detections.scores.flatMap((own, i) => {
    const name = detections.names[i];
    const least = score !== null ? score : Object.hasOwn(thresholds, name) ? thresholds[name] : 0;
    return own >= least ? [i] : [];
  });

// Groups of boxes that are switched on: {name, boxes, texts, colour, width, dash}.
auditPage.boxGroups = (scene, data, state) => {
  const groups = [];
  const add = (name, boxes, texts, colour, width, dash) => groups.push({ name, boxes, texts, colour, width, dash });
  if (state.truth) {
    for (const [name, counts, colour] of [
      ["truth", true, data.colours.truth],
      ["truth, not counted", false, data.colours.ignored],
    ]) {
      const own = scene.boxes.map((_, i) => i).filter((i) => scene.counted[i] === counts);
      add(
        name,
        own.map((i) => scene.boxes[i]),
        own.map((i) => `${name}: ${scene.names[i]}`),
        colour,
        2,
        "solid",
      );
    }
  }
  const kinds = [
    ["true", (kind) => kind === data.kinds.true, data.colours.true],
    ["false", (kind) => data.kinds.errors.includes(kind), data.colours.false],
    ["ignored", (kind) => kind === data.kinds.ignored, data.colours.ignored],
  ];
  data.models.forEach((model, m) => {
    const found = scene.detections.find((entry) => entry.model === model.name);
    if (!state.models[m] || !found) return;
    const shown = auditPage.counted(found, model.thresholds, state.score);
    for (const [name, holds, colour] of kinds) {
      const own = shown.filter((i) => holds(found.kinds[i]));
      const texts = own.map(
        (i) => `${model.name}: ${found.names[i]}, score ${found.scores[i].toFixed(2)}, ${found.kinds[i]}`,
      );
      add(
        `${model.name}: ${name}`,
        own.map((i) => found.boxes[i]),
        texts,
        colour,
        2,
        auditPage.dashOf(m),
      );
    }
  });
  const chosen = scene.boxes[state.object];
  if (chosen)
    add("chosen object", [chosen], [`chosen object: ${scene.names[state.object]}`], data.colours.missed, 4, "solid");
  return groups;
};

auditPage.dashOf = (model) => Object.keys(auditPage.DASHES)[model % Object.keys(auditPage.DASHES).length];

// Clouds of dots: all points by their height, or pale, with the importances of a model over them.
auditPage.clouds = (scene, data, state) => {
  const points = scene.axes || (scene.axes = auditPage.decode(scene.points));
  const entry = scene.importance.find((found) => found.model === state.importance);
  if (entry) {
    const amounts = auditPage.bytes(entry.importance);
    const colours = Uint32Array.from(amounts, (amount) => auditPage.colourOf(amount / 255, data.colours.sequential));
    const pale = new Uint32Array(scene.points.n).fill(0xffc8c8c8);
    return [
      { axes: points, colours: pale, size: 1 },
      { axes: auditPage.decode(entry), colours, size: 4 },
    ];
  }
  const heights = points[2];
  const grey = (z) => auditPage.colourOf((z + 2.5) / 4.5, ["#9a9a9a", "#101010"]);
  return [{ axes: points, colours: Uint32Array.from(heights, grey), size: 2 }];
};

// Looks at all points from behind the sensor.
auditPage.wholeFrame = (scene) => {
  const half = scene.points.step.map((step) => 32767 * step);
  const target = [scene.points.centre[0], scene.points.centre[1], Math.min(scene.points.centre[2], 0)];
  return { target, distance: 1.1 * Math.max(half[0], half[1], 5), yaw: 0, pitch: 0.55 };
};

auditPage.legend = (groups) =>
  groups
    .filter((group) => group.boxes.length)
    .map((group) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const dashes = auditPage.DASHES[group.dash].join(" ");
      const look = {
        x1: 0,
        x2: 40,
        y1: 5,
        y2: 5,
        stroke: group.colour,
        "stroke-width": group.width + 1,
        "stroke-dasharray": dashes,
      };
      for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
      const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      drawn.append(line);
      return auditPage.element("li", {}, [drawn, `${group.name} (${group.boxes.length})`]);
    });

// The text of the box whose centre is nearest to a place of the picture; none where all are far from it.
auditPage.boxAt = (canvas, camera, groups, x, y) => {
  const axes = auditPage.axesOf(camera);
  let [text, nearest] = ["", 30];
  for (const group of groups) {
    group.boxes.forEach((box, i) => {
      const [right, down, depth] = auditPage.project(axes, canvas.clientWidth, canvas.clientHeight, box.slice(0, 3));
      const distance = Math.hypot(right - x, down - y);
      if (depth > 0 && distance < nearest) [text, nearest] = [group.texts[i], distance];
    });
  }
  return text;
};

auditPage.scenes = (data) => {
  const { element } = auditPage;
  const first = Math.max(
    data.models.findLastIndex((model) => model.role === "student"),
    0,
  );
  const state = {
    frame: 0,
    object: null,
    truth: true,
    score: null,
    importance: null,
    camera: null,
    models: data.models.map((_, i) => i === first),
  };
  const canvas = element("canvas", {
    id: "scene",
    className: "view3d",
    tabIndex: 0,
    attributes: { role: "img", "aria-label": "The frame in three dimensions; arrow keys turn it, plus and minus zoom" },
  });
  const said = element("p", { className: "note", id: "scene-said", attributes: { "aria-live": "polite" } });
  const legend = element("ul", { className: "legend", id: "scene-legend" });
  const pointed = element("p", { id: "scene-pointed", textContent: "\u00a0" });
  let scene = null,
    opened = null,
    groups = [],
    clouds = [],
    waits = false;

  const render = () => auditPage.render(canvas, state.camera, clouds, groups);
  const look = (camera) => {
    state.camera = camera;
    if (waits) return;
    waits = true; // one picture for many movements
    requestAnimationFrame(() => {
      waits = false;
      render();
    });
  };
  const draw = () => {
    if (opened !== state.frame) [scene, opened] = [auditPage.readScene(state.frame), state.frame];
    importances();
    if (!state.camera) state.camera = auditPage.wholeFrame(scene);
    [groups, clouds] = [auditPage.boxGroups(scene, data, state), auditPage.clouds(scene, data, state)];
    const { n } = scene.points;
    const thinned = n < scene.points_in_file ? ` of ${scene.points_in_file.toLocaleString("en")} that were read` : "";
    const points = `${n.toLocaleString("en")} points${thinned}`;
    said.textContent = `Frame ${scene.frame}: ${points}, ${scene.boxes.length} labelled objects.`;
    legend.replaceChildren(...auditPage.legend(groups));
    pointed.textContent = "\u00a0";
    render();
  };
  const set = (change) => {
    Object.assign(state, change);
    if (scene || state.frame) draw();
    refresh();
  };
  const open = (frame) => set({ frame, object: null });
  const step = (by) => open((state.frame + by + data.scenes.length) % data.scenes.length);
  const button = (text, action) => {
    const made = element("button", { type: "button", textContent: text });
    made.addEventListener("click", action);
    return made;
  };
  const check = (text, change, attributes = {}) => {
    const box = element("input", { type: "checkbox", attributes });
    box.addEventListener("change", () => change(box.checked));
    return [box, element("label", { className: "model" }, [box, ` ${text}`])];
  };

  const frames = auditPage.select("frame", data.scenes, open);
  const [truth, truthLabel] = check("truth", (on) => set({ truth: on }));
  const models = data.models.map((model, m) =>
    check(
      `${model.name} (${model.role}, ${auditPage.dashOf(m)})`,
      (on) => set({ models: state.models.map((was, i) => (i === m ? on : was)) }),
      { "data-model": model.name },
    ),
  );
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    value: 0.5,
    attributes: { "aria-label": "score from which boxes are shown" },
  });
  const score = element("output");
  slider.addEventListener("input", () => set({ score: Number(slider.value) }));
  const own = button("Each model's own threshold", () => set({ score: null }));
  const colouring = element("select", { attributes: { "data-name": "colour" } });
  const scale = element("span", { className: "scale", hidden: true });
  scale.style.background = `linear-gradient(to right, ${data.colours.sequential.join(", ")})`;
  colouring.addEventListener("change", () => set({ importance: colouring.selectedIndex ? colouring.value : null }));
  const importances = () => {
    const names = scene.importance.map((entry) => entry.model);
    if (!names.includes(state.importance)) state.importance = null;
    const options = [
      element("option", { textContent: "height" }),
      ...names.map((name) => element("option", { textContent: `importance, ${name}`, value: name })),
    ];
    colouring.replaceChildren(...options);
    colouring.selectedIndex = names.indexOf(state.importance) + 1;
    scale.hidden = state.importance === null;
  };
  const toObject = () => look({ target: scene.boxes[state.object].slice(0, 3), distance: 14, yaw: 0, pitch: 0.45 });
  const object = button("To the chosen object", toObject);
  const refresh = () => {
    frames.querySelector("select").selectedIndex = state.frame;
    [truth.checked, object.disabled] = [state.truth, !scene.boxes[state.object]];
    models.forEach(([box], i) => {
      box.checked = state.models[i];
    });
    score.textContent = state.score === null ? "own thresholds" : state.score.toFixed(2);
  };

  // Opens the frame of an object with the two models of the pair.
  auditPage.showObject = (frame, chosen, pair) => {
    const shown = data.models.map((model, i) => (pair.length ? pair.includes(model.name) : state.models[i]));
    set({ frame, object: chosen, models: shown });
    if (scene.boxes[chosen]) toObject();
    document.getElementById("frames").scrollIntoView();
    canvas.focus({ preventScroll: true });
  };
  auditPage.drawFrame = () => {
    draw();
    refresh();
  }; // once the canvas has its place in the page
  auditPage.steer(
    canvas,
    () => state.camera,
    look,
    (x, y) => {
      pointed.textContent = auditPage.boxAt(canvas, state.camera, groups, x, y) || "\u00a0";
    },
  );
  window.addEventListener("resize", () => look(state.camera));
  const turn = (yaw) => () => look(auditPage.turned(state.camera, yaw, 0));
  const controls = [
    [
      frames,
      button("Previous frame", () => step(-1)),
      button("Next frame", () => step(1)),
      element("label", {}, ["points coloured by ", colouring]),
      scale,
    ],
    [truthLabel, ...models.map(([, label]) => label)],
    [element("label", {}, ["score at least ", slider, score]), own],
    [
      button("Whole frame", () => look(auditPage.wholeFrame(scene))),
      object,
      button("From above", () => look({ ...state.camera, yaw: 0, pitch: Math.PI / 2 })),
      button("From behind", () => look({ ...state.camera, yaw: 0, pitch: 0.45 })),
      button("Turn left", turn(Math.PI / 8)),
      button("Turn right", turn(-Math.PI / 8)),
      button("Nearer", () => look(auditPage.nearer(state.camera, 0.8))),
      button("Farther", () => look(auditPage.nearer(state.camera, 1.25))),
    ],
  ].map((line) => element("div", { className: "controls" }, line));
  const how =
    "Green: truth. Blue: finds an object. Orange: an error. Grey: counts neither for nor against. " +
    "The stroke from a box shows its front. " +
    "Drag to turn, with shift to move, scroll to zoom. A pointer on a box names it.";
  auditPage.look = () => state.camera; // for who asks from outside
  return element("div", {}, [
    ...controls,
    said,
    canvas,
    pointed,
    legend,
    element("p", { className: "note", textContent: how }),
  ]);
};

auditPage.write();
