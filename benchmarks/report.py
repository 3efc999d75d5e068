"""Size, processor time and readiness of the report of a sweep: `python benchmarks/report.py [FOLDER]`.

It makes a sweep of 50 runs (`--settings 17 --seeds 3`, less one that failed), each with the files that the report
reads: `config.yaml`, `result.json`, a `metrics.jsonl` of 400 rows and a sheet of samples. Then it runs
`python -m inkdrop report`, and opens the page in headless Chromium, which is asked by its debugging protocol when the
page was ready and which requests it made.
"""

from __future__ import annotations

import argparse
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
from PIL import Image

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
    trials = []
    combinations = itertools.islice(itertools.product(RATES, SCHEDULES, PREDICTIONS), settings)
    for number, (lr, schedule, prediction) in enumerate(combinations):
        for seed in range(seeds):
            overrides = [f"optimizer.lr={lr}", f"schedule={schedule}", f"prediction={prediction}", f"seed={seed}"]
            name = f"lr={lr},schedule={schedule},prediction={prediction},seed={seed}"
            trial: dict[str, Any] = {"name": name, "overrides": overrides, "state": "finished", "attempts": 1}
            trials.append({**trial, "exit_code": 0, "steps": 2000, "seconds": 100.0, "objective": None, "message": ""})
            if (number, seed) == (settings - 1, seeds - 1):
                failed = {"state": "failed", "exit_code": 5, "message": "error: not finite: the loss of step 12"}
                trials[-1] |= {**failed, "steps": 12}
                continue
            make_run(folder / name, lr, schedule, prediction, seed, rows)
    pruned = {"name": "lr=0.1", "overrides": ["optimizer.lr=0.1"], "state": "pruned", "attempts": 1, "exit_code": None}
    trials.append({**pruned, "steps": 400, "seconds": 20.0, "objective": None, "message": "worse than the median"})
    content = {"version": 1, "command": "train", "objective": None, "trials": trials}
    (folder / "sweep.json").write_text(json.dumps(content, indent=1))
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
    y, x = np.mgrid[0:44, 0:220]
    sheet = 127 + 127 * np.sin((x % 22) / (3 + lr * 500) + y / 4) * np.cos(value)
    Image.fromarray(sheet.astype(np.uint8)).save(folder / "pictures" / "samples-00002000.png")


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
            import base64

            shot = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True)["data"]
            Image.open(io.BytesIO(base64.b64decode(shot))).convert("P", palette=Image.Palette.ADAPTIVE).save(
                picture, optimize=True
            )
        return float(ready), [each for each in sent if not each.startswith(("file://", "data:"))]
    finally:
        browser.close()


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
