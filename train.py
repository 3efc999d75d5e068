"""Trains a diffusion model: `python train.py [option=value ...]`; `--help` lists the options."""

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> Any:
    from inkdrop.training import train  # torch and Lightning take seconds to import

    return train(config, HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    if {"--help", "-h"} & set(sys.argv[1:]):
        from inkdrop.help import show

        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        show(CONF, "train", "Trains a diffusion model, samples it and measures it.", overrides)
    else:
        main()
