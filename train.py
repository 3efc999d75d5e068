"""Trains a diffusion model: `python train.py [option=value ...]`, the same as `inkdrop train`; see `--help`."""

import sys

from inkdrop.distributed.signals import exit_on_signal

if __name__ == "__main__":
    with exit_on_signal():
        from inkdrop.commands.train import main

        main(sys.argv[1:])
