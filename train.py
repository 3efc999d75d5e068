"""Trains a diffusion model: `python train.py [option=value ...]`, the same as `inkdrop train`; see `--help`."""

import sys

from inkdrop.distributed.signals import left_at_once

if __name__ == "__main__":
    with left_at_once():
        from inkdrop.commands.train import main

        main(sys.argv[1:])
