"""Trains a diffusion model: `python train.py [option=value ...]`; `--help` lists the options."""

from typing import Any

import hydra
from omegaconf import DictConfig

from inkdrop.command_line import run, start


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> Any:
    from inkdrop.training import train  # torch and Lightning take seconds to import

    return run(train, config)


if __name__ == "__main__":
    start(main, "train", "Trains a diffusion model, samples it and measures it.")
