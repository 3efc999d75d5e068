"""Checkpoint files: whole or not there, believed only when verified, never executed."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import content, flip

from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
from inkdrop.conditioners import Attributes
from inkdrop.errors import CheckpointError, NonFiniteError


def saved(folder: Path, *steps: int, **options: Any) -> CheckpointFolder:
    store = CheckpointFolder(folder / "checkpoints", **options)
    for step in steps:
        store.save(content(float(step)), step)
    store.wait()
    return store


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


def value(path: Path) -> float:
    return float(read_checkpoint(path)["state_dict"]["pipeline.w"][0])


def test_what_is_written_comes_back_and_the_newest_stay(tmp_path: Path) -> None:
    saved(tmp_path, 3, 6, 9, keep=2)
    assert names(tmp_path) == ["index.json", "step-00000006.ckpt", "step-00000009.ckpt"]
    assert value(tmp_path) == 9
    assert value(tmp_path / "checkpoints" / "step-00000006.ckpt") == 6
    saved(tmp_path, 12)  # by another process
    assert names(tmp_path) == ["index.json", "step-00000009.ckpt", "step-00000012.ckpt"]


def test_every_so_many_steps_and_the_best_stay(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints", keep=1, keep_every=4, best="fd", keep_best=2)
    for step, distance in enumerate([5.0, 2.0, 9.0, 7.0, 3.0, 8.0, None], 1):
        store.save(content(metrics={} if distance is None else {"fd": distance}), step)
    store.wait()
    assert names(tmp_path) == ["index.json", *(f"step-{step:08d}.ckpt" for step in (2, 4, 5, 7))]
    highest = CheckpointFolder(tmp_path / "checkpoints", keep=1, best="-fd")
    highest.save(content(metrics={"fd": 100.0}), 8)
    highest.save(content(), 9)
    highest.wait()
    assert names(tmp_path) == ["index.json", "step-00000008.ckpt", "step-00000009.ckpt"]


def test_all_stay_and_those_after_a_step_are_cut_off(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2, 3, 4, keep=None)
    (tmp_path / "checkpoints" / "step-00000005.ckpt.0a1b2c3d.unfinished").touch()  # by a killed process
    store.cut(2)
    assert names(tmp_path) == ["index.json", "step-00000001.ckpt", "step-00000002.ckpt"]
    assert value(tmp_path) == 2
    store.cut(7)
    assert len(names(tmp_path)) == 3
    (tmp_path / "checkpoints" / "index.json").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json is missing"):
        store.cut(1)
    store.cut(0)  # all of them are to be written again
    saved(tmp_path / "new").cut(3)
    assert not (tmp_path / "new").exists()


def test_the_copy_is_taken_at_once(tmp_path: Path) -> None:
    live = content(1.0, size=3_000_000)
    store = CheckpointFolder(tmp_path / "checkpoints")
    store.save(live, 1)
    live["state_dict"]["pipeline.w"].fill_(2.0)
    store.wait()
    assert value(tmp_path) == 1


def test_broken_numbers_are_not_written(tmp_path: Path) -> None:
    store = saved(tmp_path, 1)
    for part in ({"ema": {"0.9": {"w": torch.tensor(torch.nan)}}}, {"optimizer_states": [torch.tensor([torch.inf])]}):
        store.save(content(**part), 2)
        with pytest.raises(NonFiniteError, match="step 2"):
            store.wait()
    store.save(content(torch.nan), 2)
    with pytest.raises(NonFiniteError, match=r"weights.pipeline.w"):
        store.wait()
    assert names(tmp_path) == ["index.json", "step-00000001.ckpt"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = saved(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # in the middle of the file
    try:
        store.save(content(size=1_000_000), 2)
        with pytest.raises(CheckpointError, match="could not be written"):
            store.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["index.json", "step-00000001.ckpt"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="bytes needed, 1,000 free"):
        store.save(content(), 2)
    assert value(tmp_path) == 1


def test_files_are_synced_before_they_get_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        calls.append("sync " + re.sub(r"\.[0-9a-f]{8}\.unfinished$", ".unfinished", name))
        fsync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        calls.append("rename " + target.name)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    saved(tmp_path, 5)
    assert calls == [
        *("sync step-00000005.ckpt.unfinished", "rename step-00000005.ckpt", "sync checkpoints"),
        *("sync index.json.unfinished", "rename index.json", "sync checkpoints"),
    ]


KILLED = """
import itertools, os, random, signal, sys, time, torch
from pathlib import Path
from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
torch.set_num_threads(1)
root, chance, last = Path(sys.argv[1]), random.Random(0), 0

def save(folder, steps):
    store = CheckpointFolder(folder / "checkpoints")
    for step in steps:
        weights = {"w": torch.full((200_000,), float(step))}
        store.save({"state_dict": weights, "config": {}, "global_step": step}, step)
    store.wait()

start = time.monotonic()
save(root / "warm", range(10))
one = (time.monotonic() - start) / 10  # seconds, on this disk
for instant in itertools.count():
    if instant >= 100 and last > 20:  # on a machine that is busy it may take more
        break
    child = os.fork()
    if child == 0:
        save(root, range(last + 1, 10**6))
    time.sleep(chance.uniform(0.0, 4 * one))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if not (root / "checkpoints" / "index.json").exists():
        assert last == 0
        continue
    found = read_checkpoint(root)
    step = found["global_step"]
    assert step >= last, (step, last)
    assert bool((found["state_dict"]["w"] == step).all())
    last = step
print(last)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system for the temporary folder")
def test_killed_at_any_instant_a_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert os.stat("/dev/shm").st_dev != tmp_path.stat().st_dev
    environment = {**os.environ, "TMPDIR": "/dev/shm"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    saved(tmp_path, 10**6)  # the next process clears away what killed ones have left
    (before,) = (name for name in names(tmp_path)[1:] if name != "step-01000000.ckpt")
    assert names(tmp_path) == ["index.json", before, "step-01000000.ckpt"]
    assert int(before[5:13]) >= int(done.stdout)


def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, 1, 2)
    file = tmp_path / "checkpoints" / "step-00000002.ckpt"
    sound = file.read_bytes()
    for offset in random.Random(0).sample(range(len(sound)), 20):
        file.write_bytes(sound)
        flip(file, offset)
        with pytest.raises(CheckpointError, match="damaged: its digest"):
            read_checkpoint(file)
        assert value(tmp_path) == 1  # the one before it
        assert f"{file} is damaged" in capsys.readouterr().err


def test_a_truncated_file_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, 1, 2)
    file = tmp_path / "checkpoints" / "step-00000002.ckpt"
    sound = file.read_bytes()
    for size in [0, len(sound) - 1, *random.Random(0).sample(range(1, len(sound) - 1), 8)]:
        file.write_bytes(sound[:size])
        with pytest.raises(CheckpointError, match=f"incomplete: {size} of"):
            read_checkpoint(file)
        assert value(tmp_path) == 1
        assert "is used instead" in capsys.readouterr().err


def test_without_an_index_the_files_own_checksums_decide(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    file, index = (tmp_path / "checkpoints" / name for name in ("step-00000002.ckpt", "index.json"))
    for damage in (index.unlink, lambda: index.write_text("{"), lambda: index.write_text('{"files": [{"name": 1}]}')):
        damage()
        assert value(tmp_path) == 2
    copy = tmp_path / "copy.ckpt"
    shutil.copy(file, copy)
    assert value(copy) == 2
    flip(copy, copy.read_bytes().index(torch.full((20,), 2.0).numpy().tobytes()))
    with pytest.raises(CheckpointError, match="damaged in "):
        read_checkpoint(copy)


@pytest.mark.parametrize("place", ["conditioner", "conditioner.parts.a"])
def test_attributes_of_older_files_see_numbers_as_they_are(place: str, tmp_path: Path) -> None:
    old = Attributes(3, 4)
    names = {name: value for name, value in old.state_dict().items() if name.startswith(("map", "absent"))}
    state = {f"pipeline.{place}.{name}": value for name, value in names.items()}
    torch.save({"state_dict": state, "format": 4, "config": {}}, tmp_path / "old.ckpt")
    found = read_checkpoint(tmp_path / "old.ckpt")["state_dict"]
    new = Attributes(3, 4)
    new.fit(lambda size, names=None: [{"attributes": 100 * torch.rand(9, 3)}])
    new.load_state_dict({name.removeprefix(f"pipeline.{place}."): value for name, value in found.items()})
    batch = {"attributes": torch.tensor([[300.0, 0.0, 1e9]])}
    assert torch.equal(new(batch)["vector"], old(batch)["vector"])
    new.request([0], attributes=[300.0, 0.0, 1e9])  # no range is known that it would be outside of
