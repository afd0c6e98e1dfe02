// Frames in three dimensions: points, labelled boxes, and the boxes of the chosen models, drawn by plotly.
"use strict";

auditPage.bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

// Coordinates in metres from numbers of 16 bits: [x, y, z], each a Float32Array.
auditPage.decode = (points) => {
  const view = new DataView(auditPage.bytes(points.data).buffer);
  const axes = [0, 1, 2].map(() => new Float32Array(points.n));
  for (let i = 0; i < points.n; i += 1) {
    for (let axis = 0; axis < 3; axis += 1) {
      axes[axis][i] = points.centre[axis] + points.step[axis] * view.getInt16(2 * (3 * i + axis), true);
    }
  }
  return axes;
};

// The eight corners of [x, y, z, dx, dy, dz, heading]: four at the bottom, four above them; 0 and 1 are in front.
auditPage.corners = ([x, y, z, dx, dy, dz, heading]) => {
  const [cos, sin] = [Math.cos(heading), Math.sin(heading)];
  const signs = [[1, 1], [1, -1], [-1, -1], [-1, 1]];
  return [-1, 1].flatMap((up) => signs.map(([a, b]) => {
    const [along, across] = [(a * dx) / 2, (b * dy) / 2];
    return [x + along * cos - across * sin, y + along * sin + across * cos, z + (up * dz) / 2];
  }));
};

// Corners in the order of a pen, null where it is lifted; the last stroke points to the front.
auditPage.PEN = [0, 1, 2, 3, 0, 4, 5, 6, 7, 4, null, 1, 5, null, 2, 6, null, 3, 7, null];
auditPage.DASHES = ["solid", "dash", "dot", "longdash", "dashdot", "longdashdot"];

// One line for many boxes; texts are shown where the pointer is on a box.
auditPage.boxTrace = (name, boxes, texts, line) => {
  const [x, y, z, text] = [[], [], [], []];
  boxes.forEach((box, i) => {
    const corners = auditPage.corners(box);
    const front = [box[0] + (box[3] / 2 + 0.8) * Math.cos(box[6]), box[1] + (box[3] / 2 + 0.8) * Math.sin(box[6]), box[2]];
    const strokes = [...auditPage.PEN.map((corner) => (corner === null ? [null, null, null] : corners[corner])),
      [box[0], box[1], box[2]], front, [null, null, null]];
    for (const [a, b, c] of strokes) { x.push(a); y.push(b); z.push(c); text.push(auditPage.label(texts[i])); }
  });
  return {
    type: "scatter3d", mode: "lines", name: auditPage.label(name), x, y, z, text, line, connectgaps: false,
    hovertemplate: "%{text}<extra></extra>", showlegend: boxes.length > 0, meta: { boxes: boxes.length },
  };
};

// Indices of detections that count: from the slider's score on, or, where that is null, from the model's thresholds.
auditPage.counted = (detections, thresholds, score) =>
  detections.scores.flatMap((own, i) => {
    const least = score !== null ? score : thresholds[detections.names[i]];
    return least === undefined || own >= least ? [i] : [];
  });

auditPage.KINDS = (data) => [
  ["true", (kind) => kind === data.kinds.true, data.colours.true],
  ["false", (kind) => data.kinds.errors.includes(kind), data.colours.false],
  ["ignored", (kind) => kind === data.kinds.ignored, data.colours.ignored],
];

// The lines of all that is switched on.
auditPage.boxTraces = (scene, data, state) => {
  const traces = [];
  if (state.truth) {
    const groups = [["truth", true, data.colours.truth], ["truth, not counted", false, data.colours.ignored]];
    for (const [name, counted, color] of groups) {
      const own = scene.boxes.map((_, i) => i).filter((i) => scene.counted[i] === counted);
      traces.push(auditPage.boxTrace(name, own.map((i) => scene.boxes[i]), own.map((i) => `${scene.names[i]} (${name})`), { color, width: 4 }));
    }
  }
  if (state.object !== null && scene.boxes[state.object]) {
    const line = { color: data.colours.missed, width: 9 };
    traces.push(auditPage.boxTrace("chosen object", [scene.boxes[state.object]], [scene.names[state.object]], line));
  }
  data.models.forEach((model, m) => {
    const found = scene.detections.find((entry) => entry.model === model.name);
    if (!state.models[m] || !found) return;
    const shown = auditPage.counted(found, model.thresholds, state.score);
    for (const [name, holds, color] of auditPage.KINDS(data)) {
      const own = shown.filter((i) => holds(found.kinds[i]));
      const texts = own.map((i) => `${model.name}: ${found.names[i]} ${found.scores[i].toFixed(2)}, ${found.kinds[i]}`);
      const line = { color, width: 4, dash: auditPage.DASHES[m % auditPage.DASHES.length] };
      traces.push(auditPage.boxTrace(`${model.name}: ${name}`, own.map((i) => found.boxes[i]), texts, line));
    }
  });
  return traces;
};

// What is seen: [low, high] of each axis; the surroundings of the chosen object, or all points.
auditPage.range = (scene, axes, state) => {
  if (state.near && state.object !== null && scene.boxes[state.object]) {
    const [x, y, z] = scene.boxes[state.object];
    return [[x - 12, x + 12], [y - 12, y + 12], [z - 3, z + 3]];
  }
  const ends = axes.map((axis) => axis.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]));
  const boxes = scene.boxes.concat(...scene.detections.map((entry) => entry.boxes));
  return ends.map(([low, high], i) => {
    const all = boxes.map((box) => box[i]);
    const [least, most] = [Math.min(low, ...all), Math.max(high, ...all)];
    return Number.isFinite(least) ? [least - 1, most + 1] : [-1, 1];
  });
};

auditPage.pointTraces = (scene, axes, data, state, ranges) => {
  const inside = (own) => {
    const kept = [];
    for (let i = 0; i < own[0].length; i += 1) {
      if (ranges.every(([low, high], axis) => own[axis][i] >= low && own[axis][i] <= high)) kept.push(i);
    }
    return kept;
  };
  const cloud = (own, marker, kept) => ({
    type: "scatter3d", mode: "markers", showlegend: false, hoverinfo: "skip", marker,
    x: kept.map((i) => own[0][i]), y: kept.map((i) => own[1][i]), z: kept.map((i) => own[2][i]),
  });
  const kept = inside(axes);
  const size = state.near ? 2.5 : 1.4;
  const entry = scene.importance.find((found) => found.model === state.importance);
  if (!entry) {
    const marker = { size, color: kept.map((i) => axes[2][i]), colorscale: [[0, "#8a8a8a"], [1, "#202020"]], cmin: ranges[2][0], cmax: ranges[2][1] };
    return [cloud(axes, marker, kept)];
  }
  const own = auditPage.decode(entry), amounts = auditPage.bytes(entry.importance), seen = inside(own);
  const bar = { title: { text: "importance" }, thickness: 12, len: 0.6, x: 0, xanchor: "left" };
  const coloured = { size: size + 2, color: seen.map((i) => amounts[i] / 255), colorscale: data.colours.sequential, cmin: 0, cmax: 1, colorbar: bar };
  return [cloud(axes, { size, color: "#c4c4c4" }, kept), cloud(own, coloured, seen)];
};

auditPage.CAMERAS = {
  "From behind": { eye: { x: -1.15, y: 0, z: 0.6 }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 } },
  "From above": { eye: { x: -0.01, y: 0, z: 1.5 }, up: { x: 1, y: 0, z: 0 }, center: { x: 0, y: 0, z: 0 } },
};

// The eye turned around the upright axis by an angle, and moved nearer or away by a factor.
auditPage.moved = (camera, angle, factor) => {
  const { x, y, z } = camera.eye;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const eye = { x: factor * (x * cos - y * sin), y: factor * (x * sin + y * cos), z: factor * z };
  const { x: a, y: b, z: c } = camera.up;
  return { ...camera, eye, up: { x: a * cos - b * sin, y: a * sin + b * cos, z: c } };
};

auditPage.drawScene = (drawn, scene, data, state) => {
  const axes = scene.axes || (scene.axes = auditPage.decode(scene.points));
  const ranges = auditPage.range(scene, axes, state);
  const lengths = ranges.map(([low, high]) => high - low);
  const unit = Math.max(lengths[0], lengths[1]) / 1.6;
  const axis = (title, i) => ({ title: { text: title }, range: ranges[i], showbackground: false, gridcolor: "#e4e4e4", zeroline: false, showspikes: false });
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, height: 560, legend: { x: 1, xanchor: "right", y: 1, bgcolor: "rgba(255,255,255,0.75)" },
    scene: {
      xaxis: axis("x (m)", 0), yaxis: axis("y (m)", 1), zaxis: axis("z (m)", 2), aspectmode: "manual",
      aspectratio: { x: lengths[0] / unit, y: lengths[1] / unit, z: lengths[2] / unit }, camera: state.camera, dragmode: "orbit",
    },
  };
  const traces = [...auditPage.pointTraces(scene, axes, data, state, ranges), ...auditPage.boxTraces(scene, data, state)];
  return Plotly.react(drawn, traces, layout, auditPage.plotSettings);
};

auditPage.scenes = (data) => {
  const { element } = auditPage;
  const student = data.models.findLastIndex((model) => model.role === "student");
  const first = student < 0 ? data.models.length - 1 : student;
  const state = {
    frame: 0, object: null, near: false, truth: true, score: null, importance: null,
    models: data.models.map((_, i) => i === first), camera: auditPage.CAMERAS["From behind"],
  };
  const drawn = element("div", { className: "view3d", id: "scene", attributes: { role: "img", "aria-label": "The frame in three dimensions" } });
  const said = element("p", { className: "note", id: "scene-said", attributes: { "aria-live": "polite" } });
  let scene = null, opened = null;

  const draw = async () => {
    const began = performance.now();
    if (opened !== state.frame) [scene, opened] = [auditPage.read(`scene-${state.frame}`), state.frame];
    const { n } = scene.points;
    const thinned = n < scene.points_in_file ? ` of ${scene.points_in_file.toLocaleString("en")} in its file` : "";
    said.textContent = `Frame ${scene.frame}: ${n.toLocaleString("en")} points${thinned}, ${scene.boxes.length} labelled objects.`;
    importances();
    await auditPage.drawScene(drawn, scene, data, state);
    auditPage.lastDrawn = { frame: scene.frame, milliseconds: performance.now() - began };
  };
  const set = (change) => { Object.assign(state, change); refresh(); return draw(); };
  const step = (by) => set({ frame: (state.frame + by + data.scenes.length) % data.scenes.length, object: null, near: false });
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

  const frames = auditPage.select("frame", data.scenes, (frame) => set({ frame, object: null, near: false }));
  const [truth, truthLabel] = check("truth", (on) => set({ truth: on }));
  const models = data.models.map((model, m) => check(`${model.name} (${model.role}, ${auditPage.DASHES[m % auditPage.DASHES.length]})`,
    (on) => set({ models: state.models.map((was, i) => (i === m ? on : was)) }), { "data-model": model.name }));
  const [near, nearLabel] = check("near the chosen object only", (on) => set({ near: on }));
  const slider = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0.5, attributes: { "aria-label": "score from which boxes are shown" } });
  const score = element("output");
  slider.addEventListener("input", () => set({ score: Number(slider.value) }));
  const own = button("each model's own threshold", () => set({ score: null }));
  const colouring = element("select", { attributes: { "data-name": "colour" } });
  colouring.addEventListener("change", () => set({ importance: colouring.selectedIndex ? colouring.value : null }));
  const importances = () => {
    const names = scene.importance.map((entry) => entry.model);
    if (!names.includes(state.importance)) state.importance = null;
    const options = [element("option", { textContent: "height" }), ...names.map((name) => element("option", { textContent: `importance, ${name}`, value: name }))];
    colouring.replaceChildren(...options);
    colouring.selectedIndex = names.indexOf(state.importance) + 1;
  };
  const refresh = () => {
    frames.querySelector("select").selectedIndex = state.frame;
    [truth.checked, near.checked, near.disabled] = [state.truth, state.near, state.object === null];
    models.forEach(([box], i) => { box.checked = state.models[i]; });
    score.textContent = state.score === null ? "own thresholds" : state.score.toFixed(2);
  };
  const look = (camera) => { state.camera = camera; return Plotly.relayout(drawn, { "scene.camera": camera }); };
  const seen = () => (drawn.layout && drawn.layout.scene.camera) || state.camera;
  const turn = (angle, factor) => () => look(auditPage.moved(seen(), angle, factor));

  // Opens the frame of an object with the two models of the pair.
  auditPage.showObject = (frame, object, pair) => {
    const shown = data.models.map((model, i) => (pair.length ? pair.includes(model.name) : state.models[i]));
    document.getElementById("frames").scrollIntoView();
    return set({ frame, object, near: true, models: shown, camera: auditPage.CAMERAS["From behind"] });
  };
  auditPage.waiting.push(async () => {
    refresh();
    await draw();
    drawn.on("plotly_relayout", () => { state.camera = seen(); }); // turned by hand: the next frame is seen from there
  });
  const controls = [
    [frames, button("Previous frame", () => step(-1)), button("Next frame", () => step(1)), nearLabel],
    [truthLabel, ...models.map(([, label]) => label)],
    [element("label", {}, ["score at least ", slider, score]), own, element("label", {}, ["points coloured by ", colouring])],
    [...Object.keys(auditPage.CAMERAS).map((name) => button(name, () => look(auditPage.CAMERAS[name]))),
      button("Turn left", turn(-Math.PI / 8, 1)), button("Turn right", turn(Math.PI / 8, 1)),
      button("Nearer", turn(0, 0.8)), button("Farther", turn(0, 1.25))],
  ].map((line) => element("div", { className: "controls" }, line));
  const colours = "Green: truth. Blue: finds an object. Orange: finds none. Grey: neither counts for nor against. The stroke from a box shows its front. Drag to turn, scroll to zoom.";
  return element("div", {}, [...controls, said, drawn, element("p", { className: "note", textContent: colours })]);
};

auditPage.write();
