"""Trains a diffusion model: `python train.py [option=value ...]`; `--help` lists the options."""

from typing import Any

from inkdrop.distributed.signals import left_at_once


def program() -> None:
    """What follows the command; libraries that take long to import are imported here."""
    import hydra
    from omegaconf import DictConfig

    from inkdrop.commands.entry import run, start

    @hydra.main(version_base="1.3", config_path="conf", config_name="train")
    def main(config: DictConfig) -> Any:
        from inkdrop.commands.train.run import train  # torch and Lightning take seconds to import

        return run(train, config)

    start(main, "train", "Trains a diffusion model, samples it and measures it.")


if __name__ == "__main__":
    with left_at_once():
        program()
