"""Draws samples from a trained model: `python sample.py [option=value ...]`; `--help` lists the options."""

from typing import Any

import hydra
from omegaconf import DictConfig

from inkdrop.command_line import run, start


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
def main(config: DictConfig) -> Any:
    from inkdrop.sampling import sample  # torch and Lightning take seconds to import

    return run(sample, config)


if __name__ == "__main__":
    start(main, "sample", "Draws samples from a trained model, and measures them on request.")
