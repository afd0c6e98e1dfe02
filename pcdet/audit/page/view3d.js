// A view in three dimensions on a plain canvas: it needs no graphics card, and it prints. Points are dots of a picture
// with a depth for each pixel, boxes are lines over it. x is forward, y to the left, z up, in metres.
"use strict";

auditPage.NEAREST = 0.3; // metres before the eye; what is nearer is cut off
auditPage.LENS = 1.1; // focal length over the height of the picture

// A camera looks at a target from a distance; yaw turns it to the left, pitch lowers its look.
auditPage.axesOf = ({ target, distance, yaw, pitch }) => {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const forward = [cp * cy, cp * sy, -sp];
  return {
    forward,
    right: [sy, -cy, 0],
    up: [sp * cy, sp * sy, cp],
    eye: target.map((v, i) => v - distance * forward[i]),
  };
};

// [right, down, depth]: pixels and metres. Depth may be negative, behind the eye.
auditPage.project = (axes, width, height, point) => {
  const from = point.map((v, i) => v - axes.eye[i]);
  const along = (axis) => from[0] * axis[0] + from[1] * axis[1] + from[2] * axis[2];
  const depth = along(axes.forward);
  const scale = (auditPage.LENS * height) / depth;
  return [width / 2 + scale * along(axes.right), height / 2 - scale * along(axes.up), depth];
};

// Dots into an image: cloud has axes [x, y, z], colours as 0xAABBGGRR of each point, and the size of a dot in pixels.
auditPage.drawDots = (image, depths, view, cloud) => {
  const { width, height } = image;
  const pixels = new Uint32Array(image.data.buffer);
  const { eye, forward: f, right: r, up: u } = view;
  const focal = auditPage.LENS * height;
  const [xs, ys, zs] = cloud.axes;
  for (let i = 0; i < xs.length; i += 1) {
    const [x, y, z] = [xs[i] - eye[0], ys[i] - eye[1], zs[i] - eye[2]];
    const depth = x * f[0] + y * f[1] + z * f[2];
    if (depth < auditPage.NEAREST) continue;
    const scale = focal / depth;
    const left = Math.round(width / 2 + scale * (x * r[0] + y * r[1] + z * r[2]) - cloud.size / 2);
    const top = Math.round(height / 2 - scale * (x * u[0] + y * u[1] + z * u[2]) - cloud.size / 2);
    for (let row = Math.max(top, 0); row < Math.min(top + cloud.size, height); row += 1) {
      for (let column = Math.max(left, 0); column < Math.min(left + cloud.size, width); column += 1) {
        const at = row * width + column;
        if (depth <= depths[at]) [depths[at], pixels[at]] = [depth, cloud.colours[i]];
      }
    }
  }
};

// The eight corners of [x, y, z, dx, dy, dz, heading]: four at the bottom, four above them; 0 and 1 are in front.
auditPage.corners = ([x, y, z, dx, dy, dz, heading]) => {
  const [cos, sin] = [Math.cos(heading), Math.sin(heading)];
  const signs = [
    [1, 1],
    [1, -1],
    [-1, -1],
    [-1, 1],
  ];
  return [-1, 1].flatMap((up) =>
    signs.map(([a, b]) => {
      const [along, across] = [(a * dx) / 2, (b * dy) / 2];
      return [x + along * cos - across * sin, y + along * sin + across * cos, z + (up * dz) / 2];
    }),
  );
};

// Pairs of ends: the edges of a box, and a stroke from its centre over its front.
auditPage.edges = (box) => {
  const corners = auditPage.corners(box);
  const [x, y, z, length, , , heading] = box;
  const reach = length / 2 + 0.8;
  const pairs = [0, 1, 2, 3].flatMap((i) => [
    [i, (i + 1) % 4],
    [4 + i, 4 + ((i + 1) % 4)],
    [i, 4 + i],
  ]);
  const front = [x + reach * Math.cos(heading), y + reach * Math.sin(heading), z];
  return [...pairs.map(([a, b]) => [corners[a], corners[b]]), [[x, y, z], front]];
};

// The part of a line before the eye, as pixels [[x, y], [x, y]]; null where it is all behind.
auditPage.visible = (axes, width, height, [a, b]) => {
  const depth = (point) => axes.forward.reduce((sum, v, i) => sum + v * (point[i] - axes.eye[i]), 0);
  const [near, far] = [depth(a), depth(b)];
  if (Math.max(near, far) <= auditPage.NEAREST) return null;
  const cut = (point, own, end, other) => {
    if (own > auditPage.NEAREST) return point;
    const share = (auditPage.NEAREST * 1.001 - own) / (other - own);
    return point.map((v, i) => v + share * (end[i] - v));
  };
  return [cut(a, near, b, far), cut(b, far, a, near)].map((p) => auditPage.project(axes, width, height, p).slice(0, 2));
};

auditPage.DASHES = { solid: [], dashed: [9, 5], dotted: [2, 4], "dash and dot": [9, 4, 2, 4] };

// Lines of a group: {boxes, colour, width, dash: a key of DASHES}.
auditPage.drawBoxes = (context, axes, group, ratio) => {
  const { width, height } = context.canvas;
  context.strokeStyle = group.colour;
  context.lineWidth = group.width * ratio;
  context.setLineDash(auditPage.DASHES[group.dash].map((v) => v * ratio));
  context.beginPath();
  for (const line of group.boxes.flatMap(auditPage.edges)) {
    const ends = auditPage.visible(axes, width, height, line);
    if (!ends) continue;
    context.moveTo(...ends[0]);
    context.lineTo(...ends[1]);
  }
  context.stroke();
};

// Draws clouds, then groups of boxes.
auditPage.render = (canvas, camera, clouds, groups) => {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [
    Math.max(Math.round(canvas.clientWidth * ratio), 1),
    Math.max(Math.round(canvas.clientHeight * ratio), 1),
  ];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  new Uint32Array(image.data.buffer).fill(0xffffffff);
  const depths = new Float32Array(width * height).fill(Infinity);
  const axes = auditPage.axesOf(camera);
  for (const cloud of clouds)
    auditPage.drawDots(image, depths, axes, { ...cloud, size: Math.round(cloud.size * ratio) });
  context.putImageData(image, 0, 0);
  for (const group of groups) auditPage.drawBoxes(context, axes, group, ratio);
};

auditPage.turned = (camera, yaw, pitch) => ({
  ...camera,
  yaw: camera.yaw + yaw,
  pitch: Math.min(Math.max(camera.pitch + pitch, -0.2), Math.PI / 2),
});
auditPage.nearer = (camera, factor) => ({ ...camera, distance: Math.min(Math.max(camera.distance * factor, 1), 500) });

// The target moved by pixels of the picture.
auditPage.shifted = (camera, right, down, height) => {
  const axes = auditPage.axesOf(camera);
  const scale = camera.distance / (auditPage.LENS * height);
  const target = camera.target.map((v, i) => v - scale * (right * axes.right[i] - down * axes.up[i]));
  return { ...camera, target };
};

// Mouse, touch and keys of a canvas; change(camera) gets the new camera, hover(x, y) the pointer's place.
auditPage.steer = (canvas, camera, change, hover) => {
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    last = event;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => {
    last = null;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) {
      hover(event.offsetX, event.offsetY);
      return;
    }
    const [x, y] = [event.clientX - last.clientX, event.clientY - last.clientY];
    last = event;
    if (event.shiftKey || event.buttons > 1) change(auditPage.shifted(camera(), x, y, canvas.clientHeight));
    else change(auditPage.turned(camera(), -x / 200, y / 200));
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      change(auditPage.nearer(camera(), Math.exp(event.deltaY / 700)));
    },
    { passive: false },
  );
  const keys = {
    ArrowLeft: () => auditPage.turned(camera(), 0.1, 0),
    ArrowRight: () => auditPage.turned(camera(), -0.1, 0),
    ArrowUp: () => auditPage.turned(camera(), 0, 0.1),
    ArrowDown: () => auditPage.turned(camera(), 0, -0.1),
    "+": () => auditPage.nearer(camera(), 0.8),
    "-": () => auditPage.nearer(camera(), 1.25),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    change(keys[event.key]());
  });
};
