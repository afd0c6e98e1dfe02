"""The page in a real browser: what is drawn, every control, hostile names, and that nothing asks the network."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from support.browser import browser
from support.synthetic_audit import MODELS, STUDENT, synthetic_audit, synthetic_comparison
from support.synthetic_results import large_results, small_results

from pcdet.audit.page.assembly import write_page
from pcdet.audit.report import ALL, TRUE, Audit
from pcdet.experiments.results.files import parse_results

PATIENCE = 180_000  # milliseconds, on a machine that does much else
OPENS_WITHIN = 2000  # milliseconds, as a reader is promised
AUDIT = synthetic_audit(points=2000)
COMPARISON = synthetic_comparison()
RESULTS = large_results(methods=2, seeds=3)


class Opened:
    """A page in the browser, and what happened since it was opened."""

    def __init__(self, running, path):
        self.page = running.new_page(viewport={"width": 1366, "height": 768})
        self.errors, self.requests, self.dialogs = [], [], []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri(), timeout=PATIENCE)
        self.page.wait_for_selector("html[data-ready]", timeout=PATIENCE)

    def run(self, script, argument=None):
        return self.page.evaluate(script, argument)

    def drawn(self, plot):
        """The figure that plotly holds: names, x, y and whether there is a mark."""
        script = "id => document.getElementById(id).data.map(t => ({name: t.name, x: t.x, y: t.y, mode: t.mode}))"
        return self.run(script, plot)

    def boxes(self):
        """Name -> how many boxes it has in the frame that is shown, by the legend."""
        texts = self.run("() => [...document.querySelectorAll('#scene-legend li')].map(li => li.textContent)")
        return {name: int(count) for name, count in (re.fullmatch(r"(.*) \((\d+)\)", text).groups() for text in texts)}

    def picture(self):
        """A sum over the frame as it is drawn, when no movement waits any longer."""
        script = """() => new Promise(requestAnimationFrame).then(() => {
          const canvas = document.getElementById('scene');
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return new Uint32Array(data.buffer).reduce((sum, value) => (Math.imul(sum, 31) + value) >>> 0, 7);
        })"""
        return self.run(script)

    def table(self, selector):
        """Rows of texts."""
        script = "s => [...document.querySelectorAll(s + ' tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        return self.run(script, selector)


@pytest.fixture(scope="module")
def running():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def opened(running, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    inputs = {"results": parse_results(RESULTS), "comparison": COMPARISON, "audit": AUDIT}
    return Opened(running, write_page(path, **inputs, title="An audit", facts={"data": "synthetic"}))


# ---------------------------------------------------------------------------------------------------------- as a whole


def test_the_page_opens_without_an_error_and_asks_for_its_own_file_only(opened):
    assert opened.errors == []
    assert len([url for url in opened.requests if not url.startswith(("data:", "blob:"))]) == 1
    assert opened.requests[0].startswith("file:")


def test_no_button_of_a_plot_leads_to_the_network(opened):
    """By itself, plotly has one that sends what is drawn to its maker."""
    buttons = opened.run(
        "() => [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.attr || b.dataset.title)"
    )
    assert len(buttons) > 20 and not [
        b for b in buttons if b is None or re.search("cloud|share|send|edit|plotly", b, re.I)
    ]
    links = "() => [...document.querySelectorAll('[href]')].map(a => a.getAttribute('href')).filter(h => h[0] !== '#')"
    assert opened.run(links) == []


def test_it_fits_a_laptops_width_and_is_seen_whole_when_printed(opened):
    assert opened.run("() => document.documentElement.scrollWidth") <= 1366
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("nav").is_visible() and opened.page.locator("#objects-table").is_visible()
    opened.page.emulate_media(media="screen")


def test_each_section_can_be_reached_from_the_top_by_keyboard(opened):
    opened.page.keyboard.press("Tab")
    assert opened.run("() => document.activeElement.textContent") == "To the content"
    links = opened.run("() => [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))")
    assert links == opened.run("() => [...document.querySelectorAll('main > section')].map(s => s.id)")
    assert links[0] == "summary" and links[-2:] == ["objects", "frames"]


# -------------------------------------------------------------------------------------------------------------- numbers


def test_the_forest_plot_draws_the_gains_of_the_results(opened):
    drawn = [t for t in opened.drawn("forest") if t["mode"] == "markers" and t["name"] and t["x"] != [None]]
    own = [c for c in RESULTS["comparisons"] if c["student"] == "quarter"]
    expected = {f"over {c['control']}": [d["mean"] for d in own if d["control"] == c["control"]] for c in own}
    assert len(expected) == 5
    assert {t["name"]: t["x"] for t in drawn} == expected


def test_accuracy_against_cost_is_that_of_the_comparison(opened):
    drawn = {t["name"]: (t["x"], t["y"]) for t in opened.drawn("comparison-cost")}
    for name, row in COMPARISON["rows"].items():
        assert drawn[name] == ([row["params"]], [pytest.approx(np.mean(row["3d"]["moderate"]))])


def test_tables_of_groups_and_errors_hold_the_audits_numbers(opened):
    rows = opened.table("figure:has(#group-gains)")
    own = [g for g in AUDIT.gains if g.control == "student" and AUDIT.groups[g.group].class_name == ALL]
    assert [float(row[4]) for row in rows] == [round(100 * gain.gain, 1) for gain in own]
    assert [int(row[1]) for row in rows] == [AUDIT.groups[gain.group].objects for gain in own]
    background = {e.model: e.per_frame for e in AUDIT.errors if (e.class_name, e.kind) == (ALL, "background")}
    errors = {row[0]: float(row[-1]) for row in opened.table("figure:has(#errors)")}
    assert errors == {name: round(value, 3) for name, value in background.items()}


def test_the_table_of_objects_holds_the_audits_rows(opened):
    rows = opened.table("#objects-table")
    assert len(rows) == 50
    for row, own in zip(rows, AUDIT.objects, strict=False):
        assert row[:2] == [own.frame, own.class_name] and float(row[2]) == pytest.approx(own.distance, abs=0.051)
        assert row[3] == ("-" if own.points is None else str(own.points)) and row[4] == own.attributes["occlusion"]
        assert row[5:] == [f"{100 * own.found[name]:.0f} %" for name in MODELS]


# ------------------------------------------------------------------------------------------------------------- controls


def test_every_selector_of_a_plot_changes_what_is_drawn(opened):
    """Each is set to its last option and back."""
    script = """async () => {
      const picture = (plot) => JSON.stringify([plot.data, plot.layout.xaxis.title.text]);
      const wait = () => new Promise((done) => setTimeout(done, 30));
      const dead = [], seen = [];
      for (const plot of document.querySelectorAll('.plot')) {
        for (const select of plot.closest('figure').querySelectorAll('select')) {
          const before = picture(plot);
          const choose = async (i) => {
            select.selectedIndex = i;
            select.dispatchEvent(new Event('change'));
            await wait();
          };
          await choose(select.options.length - 1);
          seen.push(plot.id + ' ' + select.dataset.name);
          if (picture(plot) === before) dead.push(seen.at(-1));
          await choose(0);
          if (picture(plot) !== before) dead.push(seen.at(-1) + ', back');
        }
      }
      return {dead, seen};
    }"""
    found = opened.run(script)
    assert found["dead"] == []
    assert len(found["seen"]) == 14 and "plan-cost cost" in found["seen"] and "group-gains pair" in found["seen"]


def test_objects_are_filtered_by_class_and_outcome_and_sorted(opened):
    page = opened.page

    def pick(name, option):
        page.locator(f"#objects select[data-name='{name}']").select_option(label=option)

    pick("class", "Cyclist")
    pick("won or lost by the student", "lost")
    rows = opened.table("#objects-table")
    lost = [o for o in AUDIT.objects if o.class_name == "Cyclist" and o.found[STUDENT] < o.found["student"]]
    assert [row[0] for row in rows] == [o.frame for o in lost] and len(rows) > 3
    pick("pair", f"{STUDENT} over student+slices")
    other = [o for o in AUDIT.objects if o.class_name == "Cyclist" and o.found[STUDENT] < o.found["student+slices"]]
    assert [row[0] for row in opened.table("#objects-table")] == [o.frame for o in other] != [o.frame for o in lost]
    pick("class", "all")
    pick("won or lost by the student", "any")
    header = page.locator("#objects-table th button", has_text="points")
    header.click()
    known = sorted(o.points for o in AUDIT.objects if o.points is not None)
    assert [row[3] for row in opened.table("#objects-table")] == [str(n) for n in known[:50]]
    header.press("Enter")  # by keyboard: the other way round
    assert [row[3] for row in opened.table("#objects-table")] == [str(n) for n in known[::-1][:50]]
    assert page.locator("#objects-table th[aria-sort=descending]").inner_text() == "points"
    page.get_by_role("button", name="Show more").click()
    assert [row[3] for row in opened.table("#objects-table")][len(known) :] == ["-"] * (len(AUDIT.objects) - len(known))


def kinds_from(model, least):
    """(true, false, ignored) boxes of a model's detections in the first scene from a score on."""
    found = AUDIT.scenes[0].detections[model]
    kept = [kind for kind, score in zip(found.kinds, found.scores, strict=True) if score >= least]
    return kept.count(TRUE), sum(kind not in (TRUE, "ignored") for kind in kept), kept.count("ignored")


def shown_of(traces, model):
    return tuple(traces.get(f"{model}: {kind}", 0) for kind in ("true", "false", "ignored"))


def test_models_truth_and_score_choose_the_boxes_that_are_drawn(opened):
    page = opened.page
    own = {model.name: model.thresholds["Car"] for model in AUDIT.models}
    first, pictures = opened.boxes(), [opened.picture()]
    assert first["truth"] == 3 and first["truth, not counted"] == 1
    assert shown_of(first, STUDENT) == kinds_from(STUDENT, own[STUDENT]) and shown_of(first, "teacher") == (0, 0, 0)
    page.locator("#frames input[data-model=teacher]").check()
    pictures.append(opened.picture())
    assert shown_of(opened.boxes(), "teacher") == kinds_from("teacher", own["teacher"])
    page.locator("#frames input[type=range]").fill("0.6")
    pictures.append(opened.picture())
    assert shown_of(opened.boxes(), STUDENT) == kinds_from(STUDENT, 0.6) != kinds_from(STUDENT, own[STUDENT])
    page.get_by_role("button", name="Each model's own threshold").click()
    page.get_by_label("truth").uncheck()
    pictures.append(opened.picture())
    assert "truth" not in opened.boxes()
    assert len(set(pictures)) == 4
    page.locator("#frames input[data-model=teacher]").uncheck()
    page.get_by_label("truth").check()
    assert opened.boxes() == first and opened.picture() == pictures[0]


def test_points_lie_where_the_scene_has_them_and_take_the_colours_of_importance(opened):
    page, scene = opened.page, AUDIT.scenes[0]
    script = """(what) => {
      const scene = auditPage.read('scene-0');
      return auditPage.decode(what === 'points' ? scene.points : scene.importance[0]).map((axis) => [...axis]);
    }"""
    assert np.abs(np.array(opened.run(script, "points")).T - scene.points).max() < 0.002
    assert np.abs(np.array(opened.run(script, "importance")).T - scene.importance[STUDENT][:, :3]).max() < 0.002
    colours = page.locator("#frames select[data-name=colour]")
    by_height = opened.picture()
    assert not page.locator("#frames .scale").is_visible()
    colours.select_option(label=f"importance, {STUDENT}")
    assert opened.picture() != by_height and page.locator("#frames .scale").is_visible()
    page.get_by_role("button", name="Next frame").click()
    assert colours.locator("option").count() == 1  # the second scene has none
    page.get_by_role("button", name="Previous frame").click()
    assert opened.picture() == by_height


def test_a_click_on_an_object_opens_its_frame_with_the_pairs_models(opened):
    page, scene = opened.page, AUDIT.scenes[2]
    row = next(o for o in AUDIT.objects if o.frame == scene.frame)
    whole = opened.picture()
    page.locator("#objects-table th button", has_text="frame").click()
    page.locator("#objects-table tbody button", has_text=scene.frame).first.click()
    text = page.locator("#scene-said").inner_text()
    assert text == f"Frame {scene.frame}: 2,000 points of 120,000 that were read, 4 labelled objects."
    checked = "() => [...document.querySelectorAll('[data-model]')].filter(c => c.checked).map(c => c.dataset.model)"
    assert opened.run(checked) in (["student", STUDENT], ["student+slices", STUDENT])
    assert opened.boxes()["chosen object"] == 1
    target = opened.run("() => auditPage.look().target")
    assert any(np.allclose(target, box[:3], atol=0.01) for box in scene.boxes) and row.index < len(scene.boxes)
    near = opened.picture()
    page.get_by_role("button", name="Whole frame").click()
    assert len({whole, near, opened.picture()}) == 3
    page.get_by_role("button", name="To the chosen object").click()
    assert opened.picture() == near
    page.locator("#frames select[data-name=frame]").select_option(index=0)
    assert "chosen object" not in opened.boxes()
    assert page.get_by_role("button", name="To the chosen object").is_disabled()


@pytest.mark.parametrize(
    "button, key, changes",
    [
        ("Turn left", "ArrowLeft", {"yaw": 1}), ("Turn right", "ArrowRight", {"yaw": -1}),
        ("Nearer", "+", {"distance": -1}), ("Farther", "-", {"distance": 1}),
        ("From above", "ArrowUp", {"pitch": 1}),
    ],
)  # fmt: skip
def test_the_view_is_turned_and_zoomed_by_buttons_and_keys(opened, button, key, changes):
    page = opened.page
    for act in (lambda: page.get_by_role("button", name=button).click(), lambda: page.locator("#scene").press(key)):
        page.get_by_role("button", name="Whole frame").click()
        before, picture = opened.run("() => auditPage.look()"), opened.picture()
        act()
        after = opened.run("() => auditPage.look()")
        signs = {name: np.sign(after[name] - before[name]) for name in ("yaw", "pitch", "distance")}
        assert {name: sign for name, sign in signs.items() if sign} == changes
        assert opened.picture() != picture


def test_the_view_is_turned_moved_and_zoomed_by_mouse_and_names_the_box_under_it(opened):
    page = opened.page
    page.get_by_role("button", name="Whole frame").click()
    canvas = page.locator("#scene")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    seen = [opened.run("() => auditPage.look()")]
    for keys in ([], ["Shift"]):
        page.mouse.move(*middle)
        for key in keys:
            page.keyboard.down(key)
        page.mouse.down()
        page.mouse.move(middle[0] + 60, middle[1] + 20)
        page.mouse.up()
        for key in keys:
            page.keyboard.up(key)
        seen.append(opened.run("() => auditPage.look()"))
    assert seen[1]["yaw"] < seen[0]["yaw"] and seen[1]["target"] == seen[0]["target"]
    assert seen[2]["yaw"] == seen[1]["yaw"] and seen[2]["target"] != seen[1]["target"]
    page.mouse.wheel(0, -200)
    page.wait_for_function("(before) => auditPage.look().distance < before", arg=seen[2]["distance"])
    page.get_by_role("button", name="Whole frame").click()
    place = """() => {
      const canvas = document.getElementById('scene'), centre = auditPage.read('scene-0').boxes[0].slice(0, 3);
      return auditPage.project(auditPage.axesOf(auditPage.look()), canvas.clientWidth, canvas.clientHeight, centre);
    }"""
    right, down, _ = opened.run(place)
    canvas.hover(position={"x": right, "y": down})
    assert page.locator("#scene-pointed").inner_text() in ("truth: Car", f"{STUDENT}: Car, score 0.95, true")


def test_a_frame_opens_in_under_two_seconds(opened):
    """The best of three, from the choice until the picture after it is on the screen."""
    script = """async (frame) => {
      const select = document.querySelector('#frames select[data-name=frame]');
      const began = performance.now();
      select.selectedIndex = frame;
      select.dispatchEvent(new Event('change'));
      await new Promise(requestAnimationFrame);
      await new Promise(requestAnimationFrame);
      return performance.now() - began;
    }"""
    taken = [opened.run(script, frame) for frame in (1, 2, 0)]
    assert min(taken) < OPENS_WITHIN, taken
    assert opened.page.locator("#scene-said").inner_text().startswith(f"Frame {AUDIT.scenes[0].frame}:")


def test_no_control_has_made_an_error_or_a_request(opened):
    """Runs after the other tests of this page."""
    assert opened.errors == [] and len([url for url in opened.requests if url.startswith(("http", "ws", "file"))]) == 1


# ---------------------------------------------------------------------------------------------------- functions of ours


def test_corners_of_a_box_are_those_of_the_projects_conventions(opened):
    """docs/CONVENTIONS.md: signs (+,+,-) (+,-,-) (-,-,-) (-,+,-), then with +; a quarter turn takes x to y."""
    corners = opened.run("() => auditPage.corners([10, 20, 1, 4, 2, 6, Math.PI / 2])")
    expected = [[9, 22, -2], [11, 22, -2], [11, 18, -2], [9, 18, -2], [9, 22, 4], [11, 22, 4], [11, 18, 4], [9, 18, 4]]
    assert np.allclose(corners, expected)


def test_a_camera_sees_its_target_in_the_middle_and_what_is_left_of_it_to_the_left(opened):
    """Looking along x from 10 m behind: y is to the left, z up, and x goes away."""
    script = """(point) => {
      const axes = auditPage.axesOf({target: [5, 0, 0], distance: 10, yaw: 0, pitch: 0});
      return auditPage.project(axes, 400, 200, point);
    }"""
    assert opened.run(script, [5, 0, 0]) == [200, 100, 10]
    lens = 1.1 * 200 / 10  # pixels a metre at the target
    assert opened.run(script, [5, 2, 1]) == pytest.approx([200 - 2 * lens, 100 - lens, 10])
    assert opened.run(script, [-7, 0, 0])[2] == pytest.approx(-2)  # behind the eye


def test_lines_are_cut_before_the_eye(opened):
    script = """(line) => {
      const axes = auditPage.axesOf({target: [10, 0, 0], distance: 10, yaw: 0, pitch: 0});
      return auditPage.visible(axes, 400, 200, line);
    }"""
    assert opened.run(script, [[-5, 1, 0], [-1, 1, 0]]) is None
    cut, end = opened.run(script, [[-5, 1, 0], [10, 1, 0]])
    assert end == pytest.approx([200 - 22, 100]) and cut == pytest.approx([200 - 220 / (0.3 * 1.001), 100])


def test_nearer_dots_hide_farther_ones_in_any_order(opened):
    script = """(order) => {
      const image = new ImageData(40, 20), depths = new Float32Array(800).fill(Infinity);
      const view = auditPage.axesOf({target: [10, 0, 0], distance: 10, yaw: 0, pitch: 0});
      const axes = [order.map((i) => [4, 8][i]), [0, 0], [0, 0]];
      auditPage.drawDots(image, depths, view, {axes, colours: order.map((i) => [0xff0000ff, 0xff00ff00][i]), size: 1});
      return [...image.data.slice(4 * (40 * 10 + 20), 4 * (40 * 10 + 20) + 4)];
    }"""
    assert opened.run(script, [0, 1]) == opened.run(script, [1, 0]) == [255, 0, 0, 255]


def test_amounts_take_the_colours_of_a_scale(opened):
    scale = ["#000000", "#102030", "#ffffff"]
    colours = opened.run("(scale) => [0, 0.25, 0.5, 1, 7].map((v) => auditPage.colourOf(v, scale))", scale)
    assert colours == [0xFF000000, 0xFF181008, 0xFF302010, 0xFFFFFFFF, 0xFFFFFFFF]  # alpha, blue, green, red


def test_sorting_puts_what_is_not_known_last_and_keeps_the_order_of_equals(opened):
    script = "([rows, falling]) => auditPage.sorted(rows, (row) => row[0], falling)"
    rows = [[2, "a"], [None, "b"], [1, "c"], [2, "d"]]
    assert opened.run(script, [rows, False]) == [[1, "c"], [2, "a"], [2, "d"], [None, "b"]]
    assert opened.run(script, [rows, True]) == [[2, "a"], [2, "d"], [1, "c"], [None, "b"]]
    assert opened.run(script, [[["f10"], ["f9"]], False]) == [["f9"], ["f10"]]


def test_a_class_without_a_threshold_counts_from_any_score_whatever_its_name(opened):
    script = "(name) => auditPage.counted({scores: [0.2, 0.9], names: [name, name]}, {Car: 0.5}, null)"
    assert [opened.run(script, name) for name in ("Car", "Other", "constructor")] == [[1], [0, 1], [0, 1]]


# -------------------------------------------------------------------------------------------------------- hostile names

HOSTILE = "<img src=x onerror=alert(1)>"
ENDS = "</script><script>alert(2)</script>\u2028%{x}"
LINK = '<a href="javascript:alert(3)">&lt;b&gt;<b>bold</b></a>'


def hostile_audit() -> Audit:
    """The synthetic audit with other names: every one of them tries to be markup."""
    names = dict(zip(MODELS, (f"teacher {ENDS}", f"student {LINK}", "__proto__", HOSTILE), strict=True))
    classes = {"Car": f"Car {HOSTILE}", "Cyclist": f"Cyclist {ENDS}", ALL: ALL}
    frames = {scene.frame: f"{scene.frame} {HOSTILE}" for scene in AUDIT.scenes}

    def by_model(mapping):
        return {names[name]: value for name, value in mapping.items()}

    def renamed_scene(scene):
        found = {
            names[name]: replace(d, names=[classes[c] for c in d.names]) for name, d in scene.detections.items()
        }  # fmt: skip
        return replace(
            scene, frame=frames[scene.frame], names=[classes[c] for c in scene.names], detections=found,
            importance=by_model(scene.importance),
        )  # fmt: skip

    return replace(
        AUDIT,
        rules={classes["Car"]: LINK},
        models=[
            replace(
                m, name=names[m.name], thresholds={classes[c]: t for c, t in m.thresholds.items()},
                first_thresholds={classes[c]: t for c, t in m.first_thresholds.items()},
            )  # fmt: skip
            for m in AUDIT.models
        ],
        groups=[replace(g, by=f"{g.by}" if g.by == "class" else f"{g.by} {LINK}", value=f"{g.value} {ENDS}",
                        class_name=classes[g.class_name], recall=by_model(g.recall)) for g in AUDIT.groups],
        gains=[replace(g, student=names[g.student], control=names[g.control]) for g in AUDIT.gains],
        errors=[replace(e, model=names[e.model], class_name=classes[e.class_name]) for e in AUDIT.errors],
        curves=[replace(c, model=names[c.model], class_name=classes[c.class_name]) for c in AUDIT.curves],
        objects=[replace(o, frame=frames.get(o.frame, ENDS), class_name=classes[o.class_name],
                         attributes={HOSTILE: LINK}, found=by_model(o.found)) for o in AUDIT.objects],
        scenes=[renamed_scene(scene) for scene in AUDIT.scenes],
    )  # fmt: skip


def test_hostile_names_are_shown_as_texts(running, tmp_path):
    rows = dict(zip((ENDS, LINK, HOSTILE, "__proto__"), COMPARISON["rows"].values(), strict=True))
    plan = json.loads(json.dumps(small_results()))
    plan["title"], plan["plan"]["TITLES"] = HOSTILE, {"fitnet": HOSTILE, "4x": ENDS, "plain": LINK}
    inputs = {"results": parse_results(plan), "comparison": {"rows": rows}, "audit": hostile_audit()}
    opened = Opened(running, write_page(tmp_path / "page.html", **inputs, title=HOSTILE, facts={LINK: ENDS}))
    page = opened.page
    elements = "() => document.querySelectorAll('img, b, main a:not([data-title]), dl a, iframe, script[src]').length"
    assert opened.run(elements) == 0
    assert len(opened.run("() => [...document.querySelectorAll('script:not([type])')].map(s => s.id)")) == 3
    assert page.locator("h1").inner_text() == HOSTILE and page.title() == HOSTILE
    assert page.locator("#objects-table td button").first.inner_text() == f"000000 {HOSTILE}"
    assert HOSTILE in page.locator("#errors .legend").text_content()  # plotly shows the characters
    page.locator("#objects-table tbody button").first.click()
    assert any(HOSTILE in name for name in opened.boxes())
    for selector in opened.page.locator("#audit select, #detections select, #objects select").all():
        selector.select_option(index=selector.locator("option").count() - 1)
    page.locator("#objects-table th button", has_text=HOSTILE).first.click()
    assert opened.run(elements) == 0
    assert (opened.errors, opened.dialogs) == ([], [])
    assert not re.search(r"<img|alert\(2\)</script>", page.content().split("<script")[0])
