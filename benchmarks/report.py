"""Size, processor time and readiness of the report of a sweep: `python benchmarks/report.py [FOLDER]`.

It makes a sweep of 50 runs (`--settings 17 --seeds 3`, less one that failed), each with the files that the report
reads: `config.yaml`, `result.json`, a `metrics.jsonl` of 400 rows and a sheet of samples. Then it runs
`python -m inkdrop report`, and opens the page in headless Chromium, which is asked by its debugging protocol when the
page was ready and which requests it made.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import io
import itertools
import json
import math
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from sklearn.datasets import load_digits

from inkdrop.commands.sweep.record import Record
from inkdrop.commands.sweep.trials import FAILED, FINISHED, PRUNED, Trial

ROOT = Path(__file__).parent.parent
SCHEDULES, PREDICTIONS, RATES = ("cosine", "linear", "vp"), ("noise", "v"), (0.001, 0.002, 0.004)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
CONFIG = """# The run again, in a new folder: python train.py --config-dir RUN --config-name config [option=value]
data: {{_target_: inkdrop.data.Digits, batch_size: 128, seed: '${{seed}}', num_workers: {workers}}}
schedule: {{_target_: inkdrop.schedules.{schedule}}}
prediction: {{_target_: inkdrop.predictions.{prediction}}}
network: {{_target_: inkdrop.networks.UNet, base_channels: 32, shape: '${{data.shape}}'}}
optimizer: {{_target_: torch.optim.AdamW, _partial_: true, lr: {lr}}}
task: {{_target_: inkdrop.tasks.DiffusionTask, seed: '${{seed}}', optimizer: '${{optimizer}}'}}
trainer: {{max_steps: 2000, devices: 1}}
seed: {seed}
name: digits
output_dir: runs/${{name}}
objective: null
"""


def make_sweep(folder: Path, settings: int, seeds: int, rows: int = 400) -> Path:
    """Writes a sweep of so many settings and seeds, of which one trial failed and one was pruned."""
    trials: list[Trial] = []
    combinations = itertools.islice(itertools.product(RATES, SCHEDULES, PREDICTIONS), settings)
    for number, (lr, schedule, prediction) in enumerate(combinations):
        for seed in range(seeds):
            overrides = [f"optimizer.lr={lr}", f"schedule={schedule}", f"prediction={prediction}", f"seed={seed}"]
            name = f"lr={lr},schedule={schedule},prediction={prediction},seed={seed}"
            trial = Trial(name, name, overrides, FINISHED, 1, 0, 2000, 2000, 100.0)
            if (number, seed) == (settings - 1, seeds - 1):
                trial.state, trial.exit_code, trial.steps = FAILED, 5, 12
                trial.message = "error: not finite: the loss of step 12"
            else:
                make_run(folder / name, lr, schedule, prediction, seed, rows)
            trials.append(trial)
    pruned = Trial("lr=0.1", "lr=0.1", ["optimizer.lr=0.1"], PRUNED, 1, None, 400, 2000, 20.0)
    pruned.message = "worse than the median"
    Record(folder).update(*trials, pruned)
    return folder


def make_run(folder: Path, lr: float, schedule: str, prediction: str, seed: int, rows: int) -> None:
    """Writes the files of a run whose values depend on its options and its seed."""
    chance = random.Random(f"{lr} {schedule} {prediction} {seed}")
    shared = random.Random(seed).gauss(0, 0.04)  # what all settings of a seed have in common
    level = 3 + abs(math.log2(lr / 0.002)) + {"cosine": 0.0, "linear": 0.8, "vp": 0.3}[schedule]
    value = level * (1 + 0.02 * (prediction == "noise")) * math.exp(shared + chance.gauss(0, 0.02))
    (folder / "pictures").mkdir(parents=True)
    config = CONFIG.format(
        lr=lr, schedule=schedule, prediction=prediction.title() + "Prediction", seed=seed, workers=seed
    )
    (folder / "config.yaml").write_text(config)
    steps = [2000 * (i + 1) // rows for i in range(rows)]
    lines = []
    for i, step in enumerate(steps):
        decay = math.exp(-step / 500)
        row = {"step": step, "time": 1.8e9 + step, "train/samples_per_second": chance.gauss(2500, 50)}
        row |= {"train/loss": 0.1 + decay * chance.uniform(0.8, 1.2), "train/gradient_norm": chance.random()}
        if i % 20 == 19:
            row |= {"fd_digits_350": value * (1 + 6 * decay), "validation/loss": 0.12 + decay}
        lines.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    metric = {"hash": "954f1f697af2", "metric": "FrechetDistance", "extractor": "digits"}
    measurement = {"num_samples": 350, "repeats": 1, "data": "Digits", "reference": "train"}
    sampling = {"sampler": {"_target_": "inkdrop.samplers.abm"}, "weights": "0.999", "seed": 0, "network_calls": 20}
    protocol = {"hash": "59ef", "measurement": measurement, "metrics": {"fd_digits_350": metric}, "sampling": sampling}
    result = {
        "metrics": {"fd_digits_350": value, "fd_digits_350_floor": 1.25, "fd_digits_350_baseline": 50.0},
        "protocol": protocol,
        "steps": 2000,
        "seconds": round(100 * chance.uniform(0.9, 1.1) * (1 + 0.3 * (schedule == "linear")), 1),
        "seed": seed,
        "versions": {"inkdrop": "0.1.0", "torch": "2.15.0"},
        "threads": 1,
        "git_commit": "77ee2275e804401c66da484feae1610c3d00a07e",
    }
    (folder / "result.json").write_text(json.dumps(result))
    sheet(value, seed=0).save(folder / "pictures" / "samples-00002000.png")


def sheet(value: float, seed: int) -> Image.Image:
    """Returns twenty digits with noise that grows with a value, ten in a row."""
    chance = np.random.default_rng(seed)
    digits = load_digits().images[:20] / 16
    noised = np.clip(digits + chance.normal(0, 0.06 * value, digits.shape), 0, 1)
    framed = np.pad(noised, ((0, 0), (0, 1), (0, 1)), constant_values=0.5)
    rows = framed.reshape(2, 10, 9, 9).transpose(0, 2, 1, 3).reshape(18, 90)
    return Image.fromarray((255 * rows).astype(np.uint8))


class Chromium:
    """A headless Chromium that is controlled through a pipe, by its debugging protocol."""

    def __init__(self, program: str):
        self._folder = tempfile.mkdtemp()
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        options = " ".join([*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self._folder}"])
        redirect = f"exec {program} {options} 3<&{there} 4>&{back}"
        silent = subprocess.DEVNULL
        command = ["bash", "-c", redirect]
        self._process = subprocess.Popen(command, pass_fds=(there, back), stdout=silent, stderr=silent)
        os.close(there)
        os.close(back)
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Returns the result of a method of the protocol; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                return answer.get("result", answer)
            self.events.append(answer)
        raise ConnectionError("Chromium has ended")

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" not in self._rest:
                if not (part := os.read(self._read, 2**16)):
                    return
                self._rest += part
            message, _, self._rest = self._rest.partition(b"\0")
            yield json.loads(message)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)


def opened(page: Path, program: str, picture: Path | None = None, address: str = "") -> tuple[float, list[str]]:
    """Returns the milliseconds until the page was ready, and the addresses that it requested; writes a screenshot."""
    browser = Chromium(program)
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": 1440, "height": 2000, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", session, **size)
        browser.call("Network.enable", session)
        browser.call("Page.navigate", session, url=f"file://{page.absolute()}{address}")
        asked, ready = "document.documentElement.dataset.ready", None
        while ready is None:  # until the page is there, the question is answered by the empty one, or not at all
            time.sleep(0.02)
            answer = browser.call("Runtime.evaluate", session, expression=asked)
            ready = answer.get("result", {}).get("value")
        sent = [
            each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"
        ]
        if picture is not None:
            shot = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True)["data"]
            save_cropped(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"), picture)
        return float(ready), [each for each in sent if not each.startswith(("file://", "data:"))]
    finally:
        browser.close()


def save_cropped(image: Image.Image, file: Path) -> None:
    """Writes a picture of a page without the empty space below it, in 256 colours."""
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox() or (0, 0, *image.size)
    image = image.crop((0, 0, image.width, min(image.height, box[3] + 24)))
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(file, optimize=True)


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="where the sweep is written; by default a temporary folder"
    )
    parser.add_argument("--settings", type=int, default=17)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--screenshot", type=Path, metavar="PNG", help="also write a picture of the page")
    parser.add_argument("--address", default="", help="state of the page in the picture, such as #sort=lr:asc")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "sweep"
        if not folder.exists():
            make_sweep(folder, arguments.settings, arguments.seeds)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "inkdrop", "report", str(folder)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        page = folder / "report.html"
        runs = len(list(folder.glob("*/result.json")))
        print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {runs} runs")
        print(f"processor time {seconds:.1f} s, page {page.stat().st_size / 1e6:.2f} MB")
        if (program := shutil.which("chromium") or shutil.which("google-chrome")) is None:
            print("without Chromium the page is not opened")
            return
        ready, requests = opened(page, program, arguments.screenshot, arguments.address)
        print(f"ready after {ready:.0f} ms in Chromium, requests beyond the file: {len(requests)}")


if __name__ == "__main__":
    main()
