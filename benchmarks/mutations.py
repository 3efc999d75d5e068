"""Random mutation of all that is read from files and from the command line: each case ends in a result or a sentence.

    python benchmarks/mutations.py --minutes 10

Sound files (a checkpoint, the records of a run, a result, arrays, images, a published folder) and options are changed
at random: single bytes, pieces, lengths, and the values within. Each case must end in a result or in an error of
inkdrop's own within 20 seconds, and within memory of a constant and a multiple of the file's size. Case N of a kind is
always the same; `--kind KIND --case N` runs it alone and shows what happens.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from report import make_sweep
from safetensors.torch import save_file

import inkdrop
from inkdrop import load
from inkdrop.checkpoints import find_checkpoint
from inkdrop.commands.report.page import report
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.configuration.compose import composed, resolved
from inkdrop.data import Arrays
from inkdrop.data.decoding import Decoder
from inkdrop.data.sources import Refused
from inkdrop.files import read_json_lines, read_yaml
from inkdrop.networks import UNet
from inkdrop.networks.diffusers_format import read_diffusers_folder, to_diffusers

SECONDS, FREE, RATIO = 20, 2**28, 64  # of a case: time, and bytes of memory, with so many for each byte of its file
POINTS = (
    "experiment=moons logger=none trainer.accelerator=cpu network.width=16 network.num_blocks=1 callbacks.evaluate=null"
)
SHORT = "callbacks.pictures=null callbacks.ema.decays=[0.9] trainer.max_steps=1 trainer.log_every_n_steps=1"
SOURCE = Path(__file__).resolve().parents[1] / "src" / "inkdrop"
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**7, 10**12, 10**30, -(10**12), 0.0, 0.5, -0.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), "", "x", "../../x", "\x1b[2J", "${seed}", "inkdrop.codecs.Pixels", "y" * 10**4),
    *([], [1], [[]], [1, 2, 3], [0, -1], ["x"], [None], {}, {"a": 1}, {"_target_": "inkdrop.codecs.Pixels"}),
    *({"_target_": "os.system"}, {"_target_": 3}, {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "x"}),
]


class Kind:
    """A kind of case: a sound thing, how it is changed, and what is done with it."""

    def __init__(self, change: Callable[[random.Random, Path], Path], use: Callable[[Path], object]):
        self.change, self.use = change, use


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes of which some are changed, taken out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(data):
                data[place] = chance.choice([0, 1, 127, 128, 255])
            case 2:
                del data[place : place + chance.choice([1, 4, 100])]
            case 3:
                data[place:place] = chance.randbytes(chance.choice([1, 4, 100]))
            case 4:
                data[place:place] = data[place : place + chance.choice([8, 100])]
            case 5:
                del data[place:]
        if not data:
            break
    return bytes(data)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within plain data."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield (*path, key)
            yield from places(value, (*path, key))


def changed(node: Any, chance: random.Random) -> Any:
    """Plain data of which a value is another one, is gone, or is doubled."""
    node = copied(node)
    for _ in range(chance.choice([1, 1, 2])):
        if not (known := list(places(node))):
            return node
        *above, last = chance.choice(known)
        holder = node
        for key in above:
            holder = holder[key]
        match chance.randrange(5):
            case 0:
                del holder[last]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(["x", 3, "", "_target_", "_partial_"])] = chance.choice(ODD)
            case 2 if isinstance(holder, dict):
                holder[last] = copied(holder[chance.choice(list(holder))])
            case _:
                holder[last] = chance.choice(ODD)
    return node


def copied(node: Any) -> Any:
    """Plain data with lists and mappings of their own."""
    if isinstance(node, dict):
        return {key: copied(value) for key, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def odd_tensor(value: torch.Tensor, chance: random.Random) -> Any:
    """A tensor of another type, shape or kind."""
    kinds: list[Callable[[], Any]] = [
        *(value.double, value.half, value.long, value.bool, value.to_sparse, value.tolist, value.numel),
        *(lambda: value.flatten()[:0], lambda: value.flatten(), lambda: value[None], lambda: value.to("meta")),
        *(lambda: value * torch.nan, lambda: value.to(torch.complex64), lambda: value.expand(3, *value.shape)),
    ]
    return chance.choice(kinds)()


def of_bytes(sound: Path) -> Callable[[random.Random, Path], Path]:
    """A copy of a file, or of a folder with one of its files, with other bytes."""

    def change(chance: random.Random, folder: Path) -> Path:
        target = folder / sound.name
        if sound.is_dir():
            shutil.copytree(sound, target)
            file = chance.choice(sorted(each for each in target.rglob("*") if each.is_file()))
            file.write_bytes(mutated(file.read_bytes(), chance))
        else:
            target.write_bytes(mutated(sound.read_bytes(), chance))
        return target

    return change


def of_values(sound: Path, name: str) -> Callable[[random.Random, Path], Path]:
    """A copy of a folder with other values in one of its JSON files."""

    def change(chance: random.Random, folder: Path) -> Path:
        shutil.copytree(sound, target := folder / sound.name)
        content = changed(json.loads((sound / name).read_text()), chance)
        (target / name).write_text(json.dumps(content, default=str, skipkeys=True))
        return target

    return change


def of_members(sound: Path) -> Callable[[random.Random, Path], Path]:
    """A checkpoint with other values in it."""
    content = torch.load(sound, weights_only=True)

    def change(chance: random.Random, folder: Path) -> Path:
        found = {**content}
        part = chance.choice(["config", "config", "config", "all", "weights", "ema", "trainable"])
        if part == "config":
            name = chance.choice(["pipeline", "pipeline", "evaluation", "data"])
            found["config"] = {**found["config"], name: changed(found["config"][name], chance)}
        elif part in ("weights", "ema"):
            states = {"weights": found["state_dict"], **found["ema"]}
            state = {**states[chance.choice(list(states))]}
            name = chance.choice(list(state))
            state[name] = odd_tensor(state[name], chance)
            found |= {"state_dict": state} if part == "weights" else {"ema": {"0.9": state}}
        else:
            found[chance.choice(list(found)) if part == "all" else part] = chance.choice(ODD)
        torch.save(found, file := folder / "file.ckpt")
        return file

    return change


def sampled(path: Path) -> object:
    """A sample by the model of a checkpoint or run."""
    pipeline = load(path)
    pipeline.check()
    return pipeline(pipeline.request([0]), [0])


def of_options(chance: random.Random, folder: Path) -> Path:
    """Options of train.py with odd values, in a file."""
    known = [path for path in OPTIONS if "callbacks" not in path]
    options = []
    for _ in range(chance.choice([1, 1, 2])):
        value = json.dumps(chance.choice(ODD), default=str).replace("NaN", "nan").replace("Infinity", "inf")
        options.append(f"{chance.choice(['', '+', '++', '++'])}{chance.choice(known)}={value}")
    (folder / "options").write_text("\n".join(options))
    return folder / "options"


OPTIONS: list[str] = []


def configured(path: Path) -> object:
    """What the check before a run does with options."""
    plain = resolved(composed("train", [*POINTS.split(), *path.read_text().split("\n")]))
    check_settings(plain)
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    check(plain, allowed)
    task = build(plain["task"], allowed)
    return task.pipeline.check()


def arrays(path: Path) -> object:
    """The items of a file of arrays."""
    return Arrays(str(path), {"x": "x"}, [4, 3], 0, 4).splits["train"]["x"][torch.arange(2)]


def picture(path: Path) -> object:
    """The pixels of an image file."""
    with contextlib.suppress(Refused):
        return Decoder([3, 16, 16])(path.read_bytes())
    return None


def records(path: Path) -> object:
    """The records of a run folder, as a run that goes on reads them."""
    found, config = find_checkpoint(path), read_yaml(path / "config.yaml")
    return found, config, list(read_json_lines(path / "metrics.jsonl"))


def table(path: Path) -> object:
    """The report of a folder, with its files now and then."""
    found = report(path)
    return found.write(path) if len(found.markdown()) % 8 == 0 else found.table()


def made(root: Path) -> dict[str, Kind]:
    """Sound files below a folder, and the kinds of cases."""
    run = root / "run"
    options = [*POINTS.split(), *SHORT.split(), f"output_dir={run}"]
    with contextlib.redirect_stdout(io.StringIO()):
        inkdrop.train(*options)
    plain = resolved(composed("train", options))
    OPTIONS.extend(".".join(map(str, path)) for path in places(plain) if all(isinstance(part, str) for part in path))
    checkpoint = find_checkpoint(run)
    x = np.random.default_rng(0).normal(size=(20, 4, 3)).astype(np.float32)
    files: dict[str, Callable[[Path], Any]] = {
        "x.npy": lambda file: np.save(file, x),
        "x.npz": lambda file: np.savez(file, x=x),
        "packed.npz": lambda file: np.savez_compressed(file, x=x.astype(int)),
        "x.pt": lambda file: torch.save({"x": torch.from_numpy(x)}, file),
    }
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8))
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        files[f"x.{suffix}"] = pixels.save
    for name, save in files.items():
        save(root / name)
    network = UNet([1, 8, 8], 8, [1, 2], 1, [], 4, norm_groups=4)
    published = root / "published"
    published.mkdir()
    (published / "config.json").write_text(json.dumps({"norm_num_groups": 4, "attention_head_dim": 4}))
    save_file(to_diffusers(network), published / "diffusion_pytorch_model.safetensors")
    (root / "results").mkdir()
    for number in range(3):
        (root / "results" / str(number)).mkdir()
        facts = {"hash": "a", "metric": "FrechetDistance"}
        sampling = {"sampler": {"_target_": "inkdrop.samplers.abm"}, "network_calls": 5 + number}
        protocol = {"measurement": {"num_samples": 9}, "metrics": {"fd": facts}, "sampling": sampling}
        content = {"metrics": {"fd": 1.0 + number, "fd_floor": 0.5}, "protocol": protocol, "checkpoint": "x"}
        (root / "results" / str(number) / "result.json").write_text(json.dumps(content))
    sweep = make_sweep(root / "sweep", settings=2, seeds=2, rows=20)
    shown = [root / name for name in files if name.split(".")[1] not in ("npy", "npz", "pt")]
    kinds = {
        "checkpoint bytes": Kind(of_bytes(checkpoint), sampled),
        "checkpoint members": Kind(of_members(checkpoint), sampled),
        "run bytes": Kind(of_bytes(run), records),
        "run index": Kind(of_values(run, "checkpoints/index.json"), records),
        "run record": Kind(of_values(run, "run.json"), records),
        "result bytes": Kind(of_bytes(root / "results"), table),
        "result values": Kind(of_values(root / "results", "1/result.json"), table),
        "sweep bytes": Kind(of_bytes(sweep), table),
        "sweep record": Kind(of_values(sweep, "sweep.json"), table),
        "options": Kind(of_options, configured),
        "published bytes": Kind(of_bytes(published), lambda path: read_diffusers_folder(path, network)),
    }
    kinds |= {f"arrays {each}": Kind(of_bytes(root / each), arrays) for each in files if root / each not in shown}
    return kinds | {f"images {each.suffix[1:]}": Kind(of_bytes(each), picture) for each in shown}


class _Hang(BaseException):
    """A case took too long."""


def _alarm(*_: object) -> None:
    raise _Hang


def _peak() -> int:
    """The most memory since it was last set back, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmHWM:")[1].split()[0])


def tried(kind: Kind, name: str, number: int) -> tuple[str, str]:
    """How a case ends: result, or the name of the error, and what is wrong with that, if something is."""
    chance = random.Random(f"{name}/{number}")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = kind.change(chance, Path(folder))
        size = sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())
        Path("/proc/self/clear_refs").write_text("5")
        before = _peak()
        signal.alarm(SECONDS)
        try:
            kind.use(path)
            ended, wrong = "result", ""
        except _Hang:
            ended, wrong = "hang", "".join(traceback.format_exc())
        except BaseException as error:
            ended, wrong = type(error).__name__, "" if _ours(error) else "".join(traceback.format_exc())
        finally:
            signal.alarm(0)
        if (taken := _peak() - before) > FREE + RATIO * size:
            return "memory", f"{taken:,} bytes for a file of {size:,}"
    return ended, wrong


def _ours(error: BaseException) -> bool:
    """Whether the commands end with it in a sentence, which inkdrop wrote."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return True
    if type(error) is ValueError:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        return Path(last).is_relative_to(SOURCE)
    return isinstance(error, ValueError) and type(error).__module__.startswith("inkdrop.")


def try_all(kinds: Mapping[str, Kind], more: Callable[[str, int], bool]) -> tuple[dict[str, Counter[str]], list[str]]:
    """Cases of each kind in turn while there are to be more: how many ended how, and what went wrong."""
    ends: dict[str, Counter[str]] = {name: Counter() for name in kinds}
    faults: list[str] = []
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, _alarm)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**33, limits[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            number, going = 0, list(kinds)
            while going := [name for name in going if more(name, number)]:
                for name in going:
                    ended, wrong = tried(kinds[name], name, number)
                    ends[name][ended] += 1
                    if wrong:
                        faults.append(f"--kind '{name}' --case {number}: {ended}\n{wrong}")
                number += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, handler)
    return ends, faults


def main() -> None:
    """Tries cases of all kinds and prints how many there were of each, and how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--kind", help="cases of this kind alone")
    parser.add_argument("--case", type=int, help="this case alone")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        kinds = made(Path(folder))
        if options.case is not None:
            print(*tried(kinds[options.kind], options.kind, options.case), sep="\n")
            return
        kinds = {name: kind for name, kind in kinds.items() if options.kind in (None, name)}
        end = time.monotonic() + 60 * options.minutes
        ends, faults = try_all(kinds, lambda name, number: time.monotonic() < end)
    print("| kind | tried | results | errors of inkdrop |\n|---|---|---|---|")
    for name, counts in ends.items():
        errors = ", ".join(f"{count} {each}" for each, count in counts.most_common() if each != "result")
        print(f"| {name} | {counts.total()} | {counts['result']} | {errors} |")
    print(f"\n{sum(counts.total() for counts in ends.values())} tried, {len(faults)} went wrong")
    print(*faults[:40], sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
