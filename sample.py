"""Samples a trained model: `python sample.py [option=value ...]`, the same as `inkdrop sample`; see `--help`."""

import sys

from inkdrop.distributed.signals import left_at_once

if __name__ == "__main__":
    with left_at_once():
        from inkdrop.commands.sample import main

        main(sys.argv[1:])
