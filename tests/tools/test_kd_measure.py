"""What kd_measure.py says of a small student's losses, against gradients and products that are found another way."""

import json

import pytest
import torch
import yaml
from commands import run
from easydict import EasyDict

from pcdet import api
from pcdet.cli import kd_measure as command
from pcdet.cli import train, train_kd
from pcdet.cli.session import open_session
from pcdet.config import ConfigError, cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.engine.runtime import seed_process
from pcdet.engine.trainer import NonFiniteError
from pcdet.models.kd.measurement import measure_step

# Products of a frame counted by hand for the tiny model, as in test_compare.py; the head's first 60 outputs are scores
# and box codes, the last 12 directions.
BLOCKS = 9 * (4096 * 2 * 4 * 4 + 1024 * (4 * 8 + 8 * 8) + 256 * (8 * 16 + 16 * 16))
BRANCHES = 4096 * 4 * 4 + 1024 * 8 * 4 * 4 + 256 * 16 * 4 * 16
PREDICTIONS, DIRECTIONS = 4096 * 12 * 60, 4096 * 12 * 12
PILLAR = 10 * 4  # of one point


@pytest.fixture(scope="module")
def teacher(cfg_file, tmp_path_factory):
    """An untrained teacher's checkpoint."""
    cfg = cfg_from_yaml_file(cfg_file, EasyDict())
    dataset, _, _ = build_dataloader(cfg.DATA_CONFIG, cfg.CLASS_NAMES, 1, False, workers=0, training=False)
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("teacher") / "checkpoint_epoch_1.pth"
    torch.save({"model_state": api.build_detector(cfg, dataset).state_dict(), "version": "pcdet+test"}, path)
    return path


@pytest.fixture
def arguments(cfg_file, teacher):
    """Flags of a measurement of the tiny distillation, or of its plain student."""

    def words(*more, plain=False):
        file = cfg_file if plain else cfg_file.with_name("tiny_kd.yaml")
        given = [] if plain else ["--teacher_ckpt", str(teacher)]
        return ["--cfg_file", str(file), *given, "--batches", "2", "--device", "cpu", "--threads", "1", *map(str, more)]

    return words


@pytest.fixture
def measure(arguments, tmp_path):
    """The numbers of a measurement."""

    def report(*more, **which):
        file = tmp_path / "new" / "numbers.json"
        command.run_measurement(command.parse_args(arguments("--json", file, *more, **which)))
        return json.loads(file.read_text())

    return report


def built(words):
    """(distiller, its first batch) of a measurement, before anything is measured."""
    args = command.parse_args(words)
    session = open_session(args)
    seed_process(args.seed)
    distil = "KD" in session.cfg
    build = train_kd.build_student_with_teacher if distil else train.build_detector
    _, trainer = train.make_trainer(session, build, session.optim.num_epochs, args.seed)
    return session, trainer, next(command.batches_of(trainer))


def gradient(model, detector, batch):
    """(the loss, the gradient on the detector's weights in one vector) of a training step's forward."""
    model.zero_grad()
    loss = model(dict(batch))[0]["loss"]
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in detector.parameters()])


def test_products_of_both_detectors_are_those_counted_by_hand(measure):
    report = measure("--batches", "1")
    passes = {name: macs["dense"] for name, macs in report["macs_by_pass"].items()}
    assert all(macs["sparse"] == 0 for macs in report["macs_by_pass"].values())
    pillars = passes["teacher_forward"] - BLOCKS - BRANCHES - PREDICTIONS
    assert pillars > 0 and pillars * 2 % PILLAR == 0, "it stops before its directions; the batch has two frames"
    assert passes["student_forward"] > BLOCKS + BRANCHES + PREDICTIONS + DIRECTIONS
    parts = report["training_macs_per_sample"]
    assert parts["total"] == sum(passes.values()) == parts["student"] + parts["teacher"] + parts["losses"]


def test_the_student_costs_in_a_distillation_what_it_costs_alone(measure):
    plain, distilled = measure(plain=True), measure()
    assert plain["macs_by_pass"]["student_backward"] == distilled["macs_by_pass"]["student_backward"]
    assert plain["macs_by_pass"]["student_forward"] == distilled["macs_by_pass"]["student_forward"]
    student = plain["training_macs_per_sample"]["student"]
    assert plain["training_macs_per_sample"] == {"student": student, "teacher": 0, "losses": 0, "total": student}
    assert plain["losses"] == {} and plain["params"]["teacher"] is None
    assert plain["detection"] == distilled["detection"], "the same student on the same batches"


def test_an_adapter_costs_its_products_three_times_and_is_counted_as_trained_along(measure):
    """A linear map of 12 channels to 12 at 50 cells of both frames: forward, and a gradient of each side."""
    loss = "[{NAME: FitNet, FEATURE: spatial_features_2d, SAMPLE: {NUM: 50}}]"
    report = measure("--batches", "1", "--set", "KD.LOSSES", loss)
    by_pass = report["macs_by_pass"]
    assert by_pass["losses_forward"]["dense"] == 50 * 12 * 12 == by_pass["losses_backward"]["dense"] / 2
    assert report["params"]["trained_along"] == 12 * 12 + 12


def test_shares_are_those_of_the_difference_between_a_distilled_and_a_plain_step(arguments, measure):
    report = measure("--batches", "1", "--set", "KD.LOSSES[0].WEIGHT", "0.5")
    _, trainer, batch = built(arguments("--set", "KD.LOSSES[0].WEIGHT", "0.5"))
    student = trainer.model.train().student
    whole, both = gradient(trainer.model, student, batch)
    own, alone = gradient(student, student, batch)
    loss = report["losses"]["PivotalLogit"]
    assert report["detection"]["value"] == pytest.approx(own, rel=1e-5)
    assert report["detection"]["gradient_norm"] == pytest.approx(alone.norm().item(), rel=1e-4)
    assert loss["share_of_loss"] == pytest.approx((whole - own) / own, rel=1e-3)
    assert loss["value"] == pytest.approx((whole - own) / 0.5, rel=1e-3) and loss["weight"] == 0.5
    assert loss["share_of_gradient"] == pytest.approx(((both - alone).norm() / alone.norm()).item(), rel=1e-3)
    assert report["total"]["share_of_gradient"] == pytest.approx(loss["share_of_gradient"], rel=1e-5)


def test_the_weight_for_a_share_gives_that_share(measure):
    wanted = measure("--share", "0.3")["losses"]["PivotalLogit"]["weight_for_share"]
    report = measure("--set", "KD.LOSSES[0].WEIGHT", repr(wanted))
    assert report["losses"]["PivotalLogit"]["share_of_gradient"] == pytest.approx(0.3, rel=1e-5)


def test_the_total_is_of_the_sum_of_weighted_gradients_and_its_factor_scales_all_weights(measure):
    loss = "{NAME: PivotalLogit, WEIGHT: 0.5}"
    one, two = measure(), measure("--set", "KD.LOSSES", f"[{loss}, {loss}]")
    assert set(two["losses"]) == {"PivotalLogit_1", "PivotalLogit_2"}
    alone = measure("--set", "KD.LOSSES", "[{NAME: PivotalLogit}]")
    for name, value in two["total"].items():
        assert value == pytest.approx(alone["total"][name], rel=1e-5), name
    assert one["total"]["factor_for_share"] == pytest.approx(one["losses"]["PivotalLogit"]["weight_for_share"])


def test_a_loss_that_is_zero_at_the_start_has_no_weight_and_is_told(measure, capsys):
    report = measure("--set", "KD.LOSSES", "[{NAME: BoxConsistency}]")
    loss = report["losses"]["BoxConsistency"]
    assert loss["value"] == 0 and loss["share_of_gradient"] == 0 and loss["weight_for_share"] is None
    assert report["total"]["factor_for_share"] is None
    assert "BoxConsistency: its value or its gradient is 0 on these batches" in capsys.readouterr().out


def test_the_same_command_writes_the_same_bytes_and_another_seed_others(arguments, tmp_path):
    files = [tmp_path / f"{name}.json" for name in ("first", "second", "other")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        command.run_measurement(command.parse_args(arguments("--seed", seed, "--json", file)))
    first, second, other = (file.read_bytes() for file in files)
    assert first == second != other


def test_measuring_trains_nothing(arguments):
    mgd = "[{NAME: FitNet, FEATURE: spatial_features_2d}, {NAME: PivotalLogit}]"
    _, trainer, batch = built(arguments("--set", "KD.TEACHER.MODE", "train", "KD.LOSSES", mgd))
    distiller, states = trainer.model.train(), []
    for _ in range(2):
        tensors = {**distiller.state_dict(), **{f"teacher.{k}": v for k, v in distiller.teacher.state_dict().items()}}
        states.append({name: tensor.clone() for name, tensor in tensors.items()})
        measure_step(distiller, batch)
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert all(p.grad is None for p in distiller.parameters())


def test_warm_steps_are_the_first_steps_of_the_plain_training(arguments):
    session, trainer, batch = built(arguments("--warm_steps", "2"))
    batches = command.batches_of(trainer)
    command.warm_up(session, trainer.model.train().student, trainer, batches)
    _, plain, _ = built(arguments(plain=True))
    plain.model.train()
    for number, batch in zip(range(2), command.batches_of(plain), strict=False):
        plain.it = number
        plain.train_step(batch)
    for (name, ours), theirs in zip(
        trainer.model.student.state_dict().items(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    with pytest.raises(ConfigError, match="--warm_steps must be at most the 8 steps of a training, got 9"):
        command.run_measurement(command.parse_args(arguments("--warm_steps", "9")))


def test_warm_steps_are_those_of_a_training_of_so_many_epochs(measure):
    assert measure("--warm_steps", "9", "--epochs", "5")["warm_steps"] == 9, "4 steps are in its file's 2 epochs"


def test_warm_steps_leave_out_the_frames_that_nobody_has_labelled(arguments, cfg_file, tmp_path):
    data = {"INFO_PATH": {"unlabelled": ["kitti_infos_val.pkl"]}}
    content = {"_BASE_CONFIG_": str(cfg_file.with_name("tiny_kd.yaml")), "DATA_CONFIG": data, "KD": {"LABELS": {}}}
    file = tmp_path / "more_frames.yaml"
    file.write_text(yaml.safe_dump(content))
    students = []
    for more in ([], ["--cfg_file", file]):
        session, trainer, _ = built(arguments(*more, "--warm_steps", "2"))
        command.warm_up(session, trainer.model.train().student, trainer, command.batches_of(trainer))
        students.append(trainer.model.student.state_dict())
    assert len(trainer.loader.dataset) == 6, "four labelled, two not"
    for name, tensor in students[0].items():
        assert torch.equal(students[1][name], tensor), name


def test_a_trained_student_is_measured_with_its_own_weights(measure, teacher):
    """The teacher's own weights: nothing is left to learn from its predictions."""
    report = measure("--student_ckpt", teacher, "--set", "KD.TEACHER.MODE", "train")
    assert report["losses"]["PivotalLogit"]["value"] == pytest.approx(0, abs=1e-9)


def test_numbers_that_are_not_finite_end_it_without_a_file(arguments, teacher, tmp_path):
    state = torch.load(teacher)
    state["model_state"]["dense_head.conv_cls.bias"].fill_(float("nan"))
    broken, file = tmp_path / "broken.pth", tmp_path / "numbers.json"
    torch.save(state, broken)
    words = arguments("--student_ckpt", broken, "--json", file)
    with pytest.raises(NonFiniteError, match=r"detection loss is nan.* on the frames \d+"):
        command.run_measurement(command.parse_args(words))
    assert not file.exists()


def test_a_training_has_an_epoch(arguments, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(arguments("--epochs", "0"))
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [("--batches", "0"), ("--warm_steps", "-1"), ("--share", "0"), ("--share", "inf")])
def test_flags_out_of_range_are_refused(arguments, flag, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(arguments(*flag))
    assert "--batches must be at least 1, --warm_steps at least 0 and --share above 0" in capsys.readouterr().err


def test_the_command_prints_one_table_of_cost_and_one_of_strength(arguments, tools):
    text = run([tools / "kd_measure.py", *arguments("--batches", "1")], cwd=tools)
    assert "training step" in text and "times the plain student's; parameters: student" in text
    assert "PivotalLogit" in text and "weight for 0.2 of it" in text
