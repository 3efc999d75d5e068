"""Samples a trained model: `python sample.py [option=value ...]`, the same as `inkdrop sample`; see `--help`."""

import sys

from inkdrop.distributed.signals import exit_on_signal

if __name__ == "__main__":
    with exit_on_signal():
        from inkdrop.commands.sample import main

        main(sys.argv[1:])
