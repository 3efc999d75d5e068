"""What a sweep is made of, each by itself: names and identity of trials, their record, places, and the pool."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from runs import configuration
from scripted import Scripted

from inkdrop.commands.sweep import main
from inkdrop.commands.sweep.launching import is_done
from inkdrop.commands.sweep.places import places
from inkdrop.commands.sweep.pool import Place, Pool, last_lines, steps_of
from inkdrop.commands.sweep.record import Record, claim, read_trials
from inkdrop.commands.sweep.running import checked_options, set_aside
from inkdrop.commands.sweep.starters import Job, Starter
from inkdrop.commands.sweep.trials import FAILED, FINISHED, INTERRUPTED, REFUSED, WAITING, Trial, name_of
from inkdrop.errors import ConfigurationError, UnreadableError
from inkdrop.runs.identity import identity


@pytest.mark.parametrize(
    ("values", "keys", "name"),
    [
        ({"optimizer.lr": "0.002", "seed": "1"}, ["optimizer.lr", "seed"], "lr=0.002,seed=1"),
        ({"optimizer.lr": "-1", "seed": "1"}, ["optimizer.lr"], "lr=-1"),
        ({"a.width": "1", "b.width": "2"}, ["a.width", "b.width"], "a.width=1,b.width=2"),
        ({"width": "1", "b.width": "2"}, ["width", "b.width"], "width=1,b.width=2"),
        ({"network.channels": "[1,2,2]"}, ["network.channels"], "channels=1-2-2"),
        ({"data.path": "/photos/my cats"}, ["data.path"], "path=-photos-my-cats"),
        ({"seed": "1"}, [], "trial"),
    ],
)
def test_a_trial_is_named_by_the_options_that_differ(values: dict[str, str], keys: list[str], name: str) -> None:
    assert name_of(values, keys, (), "0123456789") == name


def test_names_are_unique_and_short() -> None:
    assert name_of({"seed": "1"}, ["seed"], {"seed=1"}, "0123456789") == "seed=1-01234567"
    assert name_of({"x": "A"}, ["x"], {"x=a"}, "0123456789") == "x=A-01234567"
    many = {f"option_{n}": "value" * 5 for n in range(20)}
    names = [name_of(many, many, (), same) for same in ("0123456789", "9876543210")]
    assert [len(each) for each in names] == [100, 100]
    assert names[0] != names[1]


def test_a_trial_is_the_same_however_it_is_spelled() -> None:
    def same(*overrides: str) -> str:
        return identity(configuration("train", "experiment=moons", *overrides))

    known = same("optimizer.lr=0.002", "seed=1")
    assert same("seed=1", "optimizer.lr=2e-3", "output_dir=elsewhere", "logger=none", "trainer.devices=2") == known
    assert same("seed=1", "optimizer.lr=2e-3", "optimizer.weight_decay=0") == known
    assert same("seed=1", "optimizer={lr:2e-3}") == known
    others = {same("seed=2", "optimizer.lr=2e-3"), same("seed=1"), same("seed=1", "optimizer.lr=2e-3", "sampler=ddim")}
    assert len({known, *others}) == 4


def test_places_share_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    cpu, one, two = [{"devices": count, "accelerator": "cpu"} for count in (2, 1, 2)]
    assert places("auto", [cpu], []) == [Place({}, 1)] * 4
    assert places(2, [one], []) == [Place({}, 4)] * 2
    visible = [
        each.environment["CUDA_VISIBLE_DEVICES"] for each in places("auto", [one, two], ["0", "1", "2", "3", "4"])
    ]
    assert visible == ["0,1", "2,3"]
    assert places("auto", [{"devices": "auto"}], ["4", "7"]) == [Place({"CUDA_VISIBLE_DEVICES": "4,7"}, 8)]
    with pytest.raises(ConfigurationError, match=r"hydra.launcher.jobs=3 .* needs 6 GPUs, but this machine has 4"):
        places(3, [two], ["0", "1", "2", "3"])
    with pytest.raises(ConfigurationError, match=r"trainer.devices=\[0, 1\] names devices"):
        places("auto", [{"devices": [0, 1]}], ["0", "1"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert places("auto", [cpu], []) == [Place({}, 3)] * 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"jobs": 0}, "hydra.launcher.jobs=0 must be auto or a positive number"),
        ({"start": "slowly"}, "hydra.launcher.start=slowly: available: fork, fresh"),
        ({"invalid": "ignore"}, "hydra.launcher.invalid=ignore: available: refuse, skip"),
        ({"rerun": "all"}, "hydra.launcher.rerun=all: available: null, changed"),
        ({"retries": -1}, "hydra.launcher.retries=-1 must be a number of attempts"),
    ],
)
def test_options_of_the_launcher_are_checked(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{said}$"):
        checked_options(options)


def trial(name: str, **fields: object) -> Trial:
    return Trial(**{"name": name, "identity": f"of {name}", "overrides": [f"seed={name}"], "max_steps": 4, **fields})


def test_several_processes_update_one_record(tmp_path: Path) -> None:
    threads = [threading.Thread(target=Record(tmp_path).update, args=[trial(str(n))]) for n in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(int(each.name) for each in read_trials(tmp_path)) == list(range(20))
    Record(tmp_path).update(trial("3", state=FINISHED, objective=[0.5]))
    assert {each.name for each in read_trials(tmp_path) if each.state == FINISHED} == {"3"}
    assert len(read_trials(tmp_path)) == 20


def test_the_record_holds_no_secret(tmp_path: Path) -> None:
    Record(tmp_path).update(trial("1", overrides=["+logger.mine.api_token=verysecret", "seed=1"]))
    assert "verysecret" not in (tmp_path / "sweep.json").read_text()
    assert read_trials(tmp_path)[0].overrides == ["+logger.mine.api_token=***", "seed=1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "a newer version of inkdrop wrote it"),
        ({"trials": 3}, "trials: input should be a valid list"),
        ({"name": "../../etc"}, "is not the name of a folder"),
        ({"name": ".."}, "is not the name of a folder"),
        ({"state": "asleep"}, "state: input should be 'waiting'"),
        ({"seconds": float("nan")}, "seconds is not finite"),
        ({"overrides": [1]}, "overrides.0: input should be a valid string"),
    ],
)
def test_the_record_of_somebody_else_is_checked(change: dict[str, object], said: str, tmp_path: Path) -> None:
    Record(tmp_path).update(trial("1"))
    content = json.loads((tmp_path / "sweep.json").read_text())
    for name, value in change.items():
        (content if name in content else content["trials"][0])[name] = value
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(UnreadableError, match=said):
        read_trials(tmp_path)


def finish(job: Job) -> None:
    (job.log.parent / "result.json").write_text('{"metrics": {"fd": 2.5}, "steps": 4}')


def pool(folder: Path, starter: Starter, number: int = 1, **options: object) -> Pool:
    return Pool(Record(folder, ["fd"]), ["train.py"], ["hydra.verbose=true"], starter, [Place()] * number, **options)


def run(waiting: Pool, *trials: Trial) -> list[str]:
    waiting.add(*trials)
    while waiting.is_busy:
        waiting.step(timeout=0)
    return [each.state for each in trials]


def test_trials_run_as_many_at_a_time_as_there_are_places(tmp_path: Path) -> None:
    starter = Scripted([0] * 5, finish)
    trials = [trial(str(n)) for n in range(5)]
    assert run(pool(tmp_path, starter, 2), *trials) == [FINISHED] * 5
    assert starter.most == 2
    assert [each.objective for each in trials] == [[2.5]] * 5
    assert [(each.steps, each.attempts, each.exit_code) for each in read_trials(tmp_path)] == [(4, 1, 0)] * 5
    assert starter.jobs[3].command == ["train.py", "seed=3", f"output_dir={tmp_path}/3", "hydra.verbose=true"]
    assert starter.jobs[3].environment["INKDROP_TRIAL"] == "3"
    pasted = (tmp_path / "3" / "command.txt").read_text()
    assert pasted == f"python train.py seed=3 output_dir={tmp_path}/3 hydra.verbose=true\n"


@pytest.mark.parametrize(
    ("codes", "state", "attempts"),
    [
        ([1, 0], FINISHED, 2),
        ([137, 0], FINISHED, 2),
        ([1, 1], FAILED, 2),
        ([2], REFUSED, 1),
        ([3], FAILED, 1),
        ([4], FAILED, 1),
        ([5], FAILED, 1),
        ([143], INTERRUPTED, 1),
    ],
)
def test_a_trial_is_tried_again_where_that_may_help(
    codes: list[int], state: str, attempts: int, tmp_path: Path
) -> None:
    left = list(codes)

    def does(job: Job) -> None:
        if left.pop(0):
            with job.log.open("a") as log:
                log.write("noise\nerror: the disk is full\nabout it\n")
        else:
            finish(job)

    one = trial("1")
    assert run(pool(tmp_path, Scripted(codes, does)), one) == [state]
    assert (one.attempts, one.exit_code) == (attempts, codes[-1])
    assert one.message == ("" if state == FINISHED else "error: the disk is full\nabout it")


def test_a_job_that_ends_well_without_a_result_has_failed(tmp_path: Path) -> None:
    one = trial("1")
    assert run(pool(tmp_path, Scripted([0])), one) == [FAILED]
    assert one.message == "it ended without a result.json"


def test_a_finished_trial_costs_no_process(tmp_path: Path) -> None:
    assert run(pool(tmp_path, Scripted([])), trial("1", state=FINISHED)) == [FINISHED]


def test_a_trial_that_another_process_runs_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdrop.commands.sweep.pool._POLL", 0.0)
    (tmp_path / "1").mkdir()
    held = claim(tmp_path / "1" / "trial.lock")
    assert held is not None
    waiting, one = pool(tmp_path, starter := Scripted([])), trial("1")
    waiting.add(one)
    for _ in range(3):
        waiting.step(timeout=0)
    assert waiting.is_busy
    (tmp_path / "1" / "result.json").write_text('{"metrics": {"fd": 7}, "steps": 4}')
    Record(tmp_path).update(trial("1", state=FINISHED))
    held.close()
    while waiting.is_busy:
        waiting.step(timeout=0)
    assert (one.state, one.objective, starter.jobs) == (FINISHED, [7.0], [])


def test_a_run_that_has_outlived_its_sweep_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdrop.commands.sweep.pool._POLL", 0.0)
    (tmp_path / "1").mkdir()
    held = claim(tmp_path / "1" / "lock")
    assert held is not None
    waiting, one = pool(tmp_path, starter := Scripted([0], finish)), trial("1")
    waiting.add(one)
    for _ in range(3):
        waiting.step(timeout=0)
    assert starter.jobs == []
    held.close()
    while waiting.is_busy:
        waiting.step(timeout=0)
    assert (one.state, len(starter.jobs)) == (FINISHED, 1)


def test_a_signal_reaches_all_trials_and_starts_none(tmp_path: Path) -> None:
    starter = Scripted([143, 143])
    waiting, trials = pool(tmp_path, starter, 2), [trial(str(n)) for n in range(3)]
    starter.does = lambda job: waiting.stop(15) if len(starter.jobs) == 2 else None
    assert run(waiting, *trials) == [INTERRUPTED, INTERRUPTED, WAITING]
    assert [each.state for each in read_trials(tmp_path)] == [INTERRUPTED, INTERRUPTED, WAITING]


def test_a_trial_of_another_version_is_named_and_kept_or_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "result.json").write_text('{"git_commit": "0123456789abcdef", "metrics": {}}')
    one = trial("1", state=FINISHED)
    monkeypatch.setattr("inkdrop.commands.sweep.launching.commit", lambda: "0123456789abcdef")
    assert is_done(one, tmp_path, None)
    assert is_done(one, tmp_path, "changed")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("inkdrop.commands.sweep.launching.commit", lambda: "fedcba9876543210")
    assert is_done(one, tmp_path, None)
    assert "1 was finished by commit 0123456789ab, and is kept (now fedcba987654)" in capsys.readouterr().err
    assert not is_done(one, tmp_path, "changed")
    set_aside(tmp_path, [one])
    assert [file.parent.name for file in tmp_path.glob("*/result.json")] == ["1-before"]
    assert not is_done(one, tmp_path, None), "its result has gone"


def test_steps_are_those_of_the_last_complete_line(tmp_path: Path) -> None:
    assert steps_of(tmp_path) == 0
    lines = [json.dumps({"step": n, "train/loss": 1.0}) for n in range(3000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"time": 3}', '{"step": 4000, "tra']))
    assert steps_of(tmp_path) == 2999


def test_the_last_lines_are_those_of_this_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: of the first attempt\n")
    size = log.stat().st_size
    with log.open("a") as file:
        file.write("".join(f"line {n}\n\n" for n in range(9)))
    assert last_lines(log, size).splitlines() == [f"line {n}" for n in range(3, 9)]


def test_the_table_of_a_sweep_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Record(tmp_path, ["fd"]).update(
        trial("lr=1", state=FINISHED, steps=4, objective=[0.25]), trial("lr=2", state="running")
    )
    (tmp_path / "lr=2").mkdir()
    (tmp_path / "lr=2" / "metrics.jsonl").write_text('{"step": 3}\n')
    main([str(tmp_path), "--follow"])
    out = capsys.readouterr().out
    assert "4 of 4" in out
    assert "3 of 4" in out
    assert "0.25" in out
