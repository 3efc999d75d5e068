"""Draws samples from a trained model: `python sample.py [option=value ...]`; `--help` lists the options."""

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
def main(config: DictConfig) -> Any:
    from inkdrop.sampling import sample  # torch and Lightning take seconds to import

    return sample(config, HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    if {"--help", "-h"} & set(sys.argv[1:]):
        from inkdrop.help import show

        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        show(CONF, "sample", "Draws samples from a trained model, and measures them on request.", overrides)
    else:
        main()
