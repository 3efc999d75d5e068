"""Calibrations: time grids and solvers of few steps, fitted to one network."""

from inkdrop.calibration.fit import Calibration, calibrate, rms, solution
from inkdrop.calibration.store import calibration_file, read_calibration, write_calibration

__all__ = ["Calibration", "calibrate", "calibration_file", "read_calibration", "rms", "solution", "write_calibration"]
