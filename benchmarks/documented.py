"""Runs the commands of README.md and of all pages in fresh clones: `python benchmarks/documented.py FOLDER`.

Each page has a clone of its own below FOLDER, in which its blocks are carried out in order: commands of the shell one
by one, the Python at the end, and a block whose first line names a file (`# my_conf/...`) becomes this file. First the
script makes what stands for something of the reader's own, such as RUN and PHOTOS. Training is cut to a few steps
unless --full is given, and SKIPPED has the commands that do not run here, with the reason. The script prints a table,
and its exit code is 1 if a command failed. The environment is that of this Python; with --set-up `make` makes one in
each clone.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FIRST = (ROOT / "README.md", ROOT / "docs" / "first-hour.md")
PAGES = [*FIRST, *sorted({*(ROOT / "docs").glob("*.md")} - {*FIRST}), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
FEW_STEPS = "trainer.max_steps=20 trainer.log_every_n_steps=10"
# (pattern of a command, what is added to it unless --full is given); the first that fits counts
SHORTER = [
    (r"--cfg|trainer\.max_steps=0|-m inkdrop describe", ""),
    (r"-m inkdrop make-extractor", "num_steps=20"),
    (r"train\.py .*experiment=mnist", f"{FEW_STEPS} ~callbacks.evaluate callbacks.pictures.num_samples=4"),
    (r"objective=validation/loss", f"{FEW_STEPS} trainer.val_check_interval=10"),  # else it is not measured
    (r"output_dir=runs/constant", "trainer.max_steps=100"),  # of which there are four snapshots
    (r"python train\.py", FEW_STEPS),
    (r"benchmarks/ema\.py", "--num-seeds 1 --num-samples 140 --lengths 0.1"),
]
# (pattern of a command, why it is not run)
SKIPPED = [
    (r"^make ", "it makes an environment of its own"),
    (r"^\. ", "the environment is given"),
    (r"-m pytest", "continuous integration runs it"),
    (r"pre-commit", "it changes the repository"),
    (r"train\.py .*=cifar10_jpeg|extractor=cifar10_jpeg", "it takes long without a GPU"),
    (r"trainer\.devices=[24]", "it needs several devices"),
    (r"extractor=inception", "it needs the weights of Inception"),
    (r"benchmarks/kills\.py", "it takes an hour"),
    (r"THEIR_FOLDER", "it needs a stranger"),
    (r"^wandb (?:sync|sweep|agent)", "it needs an account of W&B"),
    (r"/scratch/", "it needs a second disk"),
]
# Those that need the whole of a training, and are run with --full only.
WHOLE = r"step=1000|ema\.py runs/mnist|inkdrop\.train\("
RUN = (
    f"python train.py {FEW_STEPS} callbacks.ema.lengths=[0.05,0.1] "
    "'callbacks.ema.snapshots={_target_: inkdrop.callbacks.Every, steps: 5}' output_dir="
)


class Done(NamedTuple):
    """A command of a page, what came of it, and how long it took."""

    page: str
    command: str
    outcome: str
    seconds: float


def main() -> None:
    """Runs the pages that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to be made, for the clones and for what they print")
    parser.add_argument("--pages", nargs="+", help="names such as README.md; all by default")
    parser.add_argument("--full", action="store_true", help="train as long as the pages say")
    parser.add_argument("--set-up", action="store_true", help="let `make` make an environment in each clone")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    done: list[Done] = []
    for page in PAGES:
        if not options.pages or page.name in options.pages:
            for each in carried_out(page, options.folder.resolve(), options.full, options.set_up):
                print(f"{each.page}: {each.command}: {each.outcome}, {each.seconds:.0f} s", flush=True)
                done.append(each)
    print("\n| page | command | result | s |\n|---|---|---|---|")
    for each in done:
        print(f"| {each.page} | `{each.command}` | {each.outcome} | {each.seconds:.0f} |")
    failed = sum(each.outcome.startswith("code") for each in done)
    print(f"\n{len(done)} commands: {sum(each.outcome == 'ok' for each in done)} ok, {failed} failed")
    sys.exit(1 if failed else 0)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of each fenced block of a page."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def commands(block: str) -> list[str]:
    """The commands of a block of the shell, without comments, and with continued lines as one."""
    lines = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in re.sub(r"\\\n\s*", "", block).splitlines())
    return [line for line in lines if line]


def commands_in_sentences(text: str) -> list[str]:
    """The commands of inkdrop that a page names outside of its blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(line.split()) for line in re.findall(r"`(python (?:train|sample|-m inkdrop)[^`]*)`", prose)]


def file_name(block: str) -> str:
    """The name of the file that a block is, as its first line says; empty if it is none."""
    match = re.match(r"# ([\w/.-]+\.(?:py|yaml))\b", block)
    return match[1] if match else ""


def carried_out(page: Path, folder: Path, full: bool, set_up: bool) -> Iterator[Done]:
    """Each command of a page, in a clone of its own."""
    text = page.read_text()
    python = [block for kind, block in blocks(text) if kind == "python" and "inkdrop" in block and not file_name(block)]
    lines = [line for language, block in blocks(text) if language == "bash" for line in commands(block)]
    if not lines and not python:
        return
    shell = Shell(folder, page.stem, set_up)
    make_files(shell.clone, text)
    for name in ("RUN", "runs/first"):
        if name in text and not re.search(rf"output_dir={name}\b", text):
            yield shell(page, f"{RUN}{name}")
    for language, block in blocks(text):
        if name := file_name(block):
            (shell.clone / name).parent.mkdir(parents=True, exist_ok=True)
            (shell.clone / name).write_text(block)
        for line in commands(block) if language == "bash" else []:
            if why := not_run(line, full):
                yield Done(page.name, line, f"not run: {why}", 0)
            else:
                more = "" if full else next((options for fits, options in SHORTER if re.search(fits, line)), "")
                yield shell(page, f"{line} {more}".strip())
    if python and not not_run(code := "\n".join(python), full):
        yield shell(page, f"python -c {shlex.quote(code)}", "its Python")


def not_run(command: str, full: bool) -> str:
    """Why a command is not run; empty if it is."""
    if not full and re.search(WHOLE, command):
        return "it needs the whole training of --full"
    return next((why for fits, why in SKIPPED if re.search(fits, command)), "")


class Shell:
    """Runs commands in a clone, and keeps what they print in a file beside it."""

    def __init__(self, folder: Path, name: str, set_up: bool):
        self.clone, self.log = folder / name, folder / f"{name}.log"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)
        programs = self.clone / ".venv" / "bin" if set_up else Path(sys.executable).parent
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": "." if set_up else f"{self.clone / 'src'}:.",
            "WANDB_MODE": "offline",
        }
        if set_up:
            subprocess.run(["make", f"PYTHON={sys.executable}", ".venv/.ready"], cwd=self.clone, check=True)

    def __call__(self, page: Path, command: str, name: str = "") -> Done:
        start = time.monotonic()
        with self.log.open("a") as log:
            print(f"\n$ {command}", file=log, flush=True)
            code = subprocess.run(
                ["bash", "-c", command], cwd=self.clone, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            ).returncode
        return Done(page.name, name or command, "ok" if code == 0 else f"code {code}", time.monotonic() - start)


def make_files(folder: Path, text: str, number: int = 100) -> None:
    """What a page takes for the reader's own: photos, of this number, archives, arrays and shards, as it names them."""
    import numpy as np
    from photos import draw
    from sklearn.datasets import load_digits

    if "PHOTOS" in text or ".zip" in text:
        draw(folder / "PHOTOS", number, (48, 32))
    if "CAPTIONED" in text:
        draw(folder / "CAPTIONED", number, (48, 32), captions=True)
    if "ENCODER" in text:
        from text_encoder import make

        make(str(folder / "ENCODER"), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    if ".zip" in text:
        for i, photo in enumerate(sorted((folder / "PHOTOS").iterdir())):
            (folder / "classes" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder / "classes" / "ab"[i % 2])
        for name in ("photos", "train", "test"):
            shutil.make_archive(str(folder / name), "zip", folder / "classes")
    if ".npy" in text or ".npz" in text:
        digits, chance = load_digits(), np.random.default_rng(0)
        np.save(folder / "series.npy", chance.normal(size=(400, 3, 32)).astype("float32"))
        np.savez(folder / "digits.npz", images=(digits.images * 15.9).astype("uint8")[:, None], digit=digits.target)
        (folder / "big").mkdir()
        np.save(folder / "big" / "points.npy", chance.normal(size=(400, 2)).astype("float32"))
    if "shards/" in text:
        make_shards(folder / "shards", [f"train-{number:06d}" for number in range(5)] + ["held-000000"])


def make_shards(folder: Path, names: list[str]) -> None:
    """Tar shards of 120 small images each."""
    import io
    import tarfile

    import numpy as np

    folder.mkdir()
    for name in names:
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for i in range(120):
                image = io.BytesIO()
                np.save(image, np.full((1, 8, 8), 2 * i, np.uint8))
                for ending, content in (("npy", image.getvalue()), ("cls", str(i % 10).encode())):
                    member = tarfile.TarInfo(f"{i:06d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main()
