"""Every choice of conf/, each with the options that it needs beside it."""

from __future__ import annotations

from typing import Any

from runs import ROOT, configuration

from inkdrop.configuration.compose import resolved

CONF = ROOT / "conf"


FILES = sorted(CONF.rglob("*.yaml"))


# Parts that only fit certain others; everything else composes with the digits.
COMPANIONS = {
    "data=mnist": ["experiment=mnist"],
    "data=arrays": ["experiment=moons", "data.path=points.npz", "data.shape=[2]"],
    "data=webdataset": ["data.train=a.tar", "data.validation=b.tar", "data.shape=[1,8,8]", "data.num_classes=10"],
    "data=cifar10": ["network=ddpm_cifar10", "extractor=cifar10_jpeg"],
    "data=cifar10_jpeg": ["network=ddpm_cifar10", "extractor=cifar10_jpeg"],
    "experiment=photos": ["data.path=nowhere", "data.shape=[3,64,96]"],  # null would look there
    "data=image_folder": [
        "data.path=nowhere",
        "data.shape=[3,32,32]",
        "data.num_classes=10",
        "network=ddpm_cifar10",
        "extractor=cifar10_jpeg",
    ],
    "data=moons": ["experiment=moons"],
    "data=ring": ["experiment=moons"],
    "data=checkerboard": ["experiment=moons"],
    "network=mlp": ["experiment=moons"],
    "codec=standardize": ["experiment=moons"],
    "extractor=identity": ["experiment=moons"],
    "task=classifier": ["experiment=digits_classifier"],
    "network=encoder": ["experiment=digits_classifier"],
    "guidance=autoguidance": ["guidance.autoguidance.weak.checkpoint=nowhere"],
    "guidance=classifier": ["guidance.classifier.classifier.checkpoint=nowhere"],
    "schedule=linear": ["prediction=flow", "time_sampler=uniform"],
    **{f"schedule={name}": ["time_sampler=uniform"] for name in ("vp", "sub_vp", "ve", "edm", "interpolated")},
    "loss=hybrid": ["network=learned_variance"],
    "schedule=laplace": ["prediction=v", "time_sampler=uniform"],
    "schedule=zero_terminal_snr": ["prediction=v"],
    "extractor=mnist": ["experiment=mnist"],
    "extractor=cifar10_jpeg": ["data.shape=[3,32,32]", "network=ddpm_cifar10"],
    "network=ddpm_cifar10": ["data.shape=[3,32,32]", "extractor=cifar10_jpeg"],
}


def composed(overrides: list[str], name: str = "train") -> dict[str, Any]:
    """The values of a configuration with these options."""
    return resolved(configuration(name, *overrides, "output_dir=nowhere"))


def choices() -> list[list[str]]:
    """The options of each choice."""
    found = [[f"{file.parent.name}={file.stem}"] for file in FILES if file.parent.parent == CONF]
    return [choice + COMPANIONS.get(choice[0], []) for choice in found]
