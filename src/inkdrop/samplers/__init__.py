"""Samplers: the sampling loop, the building blocks of methods, and the methods by name."""

from inkdrop.noises.kernels import forward_kernel, towards
from inkdrop.samplers.adams import Adams
from inkdrop.samplers.adaptive import Adaptive
from inkdrop.samplers.ancestral import Ancestral
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.samplers.calibrated import Calibrated
from inkdrop.samplers.confidence import Confidence
from inkdrop.samplers.ddim import DDIM
from inkdrop.samplers.methods import (
    abm,
    adams_sde,
    deis,
    dpm_2,
    dpm_3,
    dpm_multistep,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3m_sde,
    dpmpp_3s,
    euler_ancestral,
    heun,
    ipndm,
    lms,
    midpoint,
    unipc,
)
from inkdrop.samplers.pndm import PNDM
from inkdrop.samplers.runge_kutta import RungeKutta
from inkdrop.samplers.score_sde import EulerMaruyama, PredictorCorrector, ReverseDiffusion

__all__ = [
    "DDIM",
    "PNDM",
    "Adams",
    "Adaptive",
    "Ancestral",
    "Calibrated",
    "Confidence",
    "Denoise",
    "EulerMaruyama",
    "History",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "Sampler",
    "abm",
    "adams_sde",
    "deis",
    "dpm_2",
    "dpm_3",
    "dpm_multistep",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "euler_ancestral",
    "forward_kernel",
    "heun",
    "ipndm",
    "lms",
    "midpoint",
    "towards",
    "unipc",
]
