"""The page of `python -m inkdrop describe`, from its facts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = 120
_PREFIXES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (0.0, " "))
_DURATIONS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (0.0, "seconds"))


def markdown(found: Mapping[str, Any]) -> str:
    """Returns the page, in Markdown of at most 120 columns."""
    sections = [_process(found), _coefficients(found["coefficients"]), _times(found), _costs(found)]
    return "\n\n".join("\n".join(section) for section in sections)


def _process(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {found['name']}\n"
    if found["missing"]:
        yield item("missing", f"this page does not need it, but a run does: {found['missing']}")
    if found["coefficients"]:
        yield item("process", "x_t = alpha(t) x_0 + sigma(t) eps, with t from 0 (data) to 1 (noise)")
    yield item("estimate", found["estimate"])
    inputs = ["c_noise"] if found["coefficients"] else []  # which a model without times does not have
    inputs += [f"{name} {shape}" for name, shape in found["conditions"].items()]
    yield item("shape", f"x is {found['shape']}" + (f"; the network receives {', '.join(inputs)}" if inputs else ""))
    for name, part in found["parts"].items():
        yield item(name, f"{part['is']}: {part['does']}")


def _coefficients(rows: Sequence[Mapping[str, float]]) -> Iterator[str]:
    if not rows:  # a model without times
        return
    columns = list(rows[-1])
    cells = [[number(row[name]) if name in row else "" for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for cell in (columns, ["-" * width for width in widths], *cells):
        yield f"| {' | '.join(text.rjust(width) for text, width in zip(cell, widths, strict=True))} |"


def _times(found: Mapping[str, Any]) -> Iterator[str]:
    training, sampling = found["training"], found.get("sampling")
    if (levels := found["trained_log_snr"]) is not None:
        low, lower, upper, high = map(number, levels)
        yield item(
            "noise levels",
            f"half of the training samples have a log-SNR of {lower} to {upper}, and 90% one of {low} to {high}",
        )
    if sampling is not None:
        times, noise = [f"{t:.4g}" for t in sampling["times"]], sampling["noise_levels"]
        shown = times if len(times) <= 6 else [*times[:3], "...", *times[-3:]]
        yield item(
            "a sample",
            f"{len(times) - 1} sampling steps in {sampling['calls']} calls of the network, with {sampling['passes']} "
            f"network evaluations: t = {', '.join(shown)}, sigma / alpha from {number(noise[0])} down to "
            f"{number(noise[-1])}, then 0",
        )
    devices, here = training["devices"], training["samples_per_device"]
    where = f"each of {devices} devices" if devices > 1 else "one device"
    yield item(
        "training",
        f"{training['steps']:,} steps on {training['samples_per_step']} samples, {here} at a time on {where}, "
        f"in {training['precision']}",
    )
    step = training["options"]
    yield item(
        "a step",
        f"{step['compile']}, weights {step['layout']}; the optimizer updates {step['update']}; the gradient is "
        f"{step['gradient']}",
    )


def _costs(found: Mapping[str, Any]) -> Iterator[str]:
    counts, training = found["parameters"], found["training"]
    children = ", ".join(f"{name} {big(count)}" for name, count in counts["children"].items())
    others = "".join(f"; {name} {big(counts[name])}" for name in ("conditioner", "codec", "loss") if counts.get(name))
    yield item("parameters", f"{big(counts['trained'])} trained; network {big(counts['network'])}: {children}{others}")
    if "operations" not in found:
        return
    counted = f"{big(found['operations']['call'], 'FLOP')} for a forward pass of one sample"
    if (step := found["operations"].get("training")) is not None:
        counted += f", {big(step, 'FLOP')} for one sample in training"
        counted += f", {big(step * training['samples_per_step'], 'FLOP')} for a training step"
    yield item("operations", counted)
    parts = ", ".join(f"{name} {big(size, 'B')}" for name, size in found["memory"].items())
    total = big(sum(found["memory"].values()), "B")
    yield item("memory", f"at least {total} on each device in training: {parts}")
    if "speed" in found:
        yield from _speed(found["speed"], training)
    if "speed" in found and "sampling" in found:
        seconds = found["sampling"]["passes"] / found["speed"]["calls_per_second"]
        yield item("sampling here", f"{duration(seconds)} for {training['samples_per_device']} samples")


def _speed(speed: Mapping[str, float], training: Mapping[str, Any]) -> Iterator[str]:
    here, rate = training["samples_per_device"], speed["steps_per_second"]
    waiting = " and without waiting for other devices" if training["devices"] > 1 else ""
    scaled = f", measured on {speed['measured_on']} at a time" if speed["measured_on"] < here else ""
    yield item(
        "speed here",
        f"{number(rate)} steps/s, {number(rate * training['samples_per_step'])} samples/s{scaled}; without averages, "
        f"pictures and evaluation{waiting} {duration(training['steps'] / rate)} for all {training['steps']:,} steps",
    )


def item(name: str, text: str) -> str:
    """Returns one point of a list."""
    return textwrap.fill(f"- {name}: {text}", _WIDTH, subsequent_indent="  ", break_long_words=False)


def number(value: float) -> str:
    """Returns a number with three digits, or a whole one from 1000 on."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def big(value: float, unit: str = "") -> str:
    """Returns a number with three digits, a prefix and the unit, such as `35.7 M`."""
    size, prefix = next((size, prefix) for size, prefix in _PREFIXES if value >= size)
    return f"{value / (size or 1):.3g}{prefix}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Returns a time with two digits and its unit, such as `36 minutes`."""
    size, unit = next((size, unit) for size, unit in _DURATIONS if seconds >= 2 * size)
    return f"{seconds / (size or 1):.2g} {unit}"
